//! Whether the templates can be loaded, by loading them into nowhere. As whom the daemon is to run.

use super::{Finding, Trial, plain};
use crate::config::Dsn;
use crate::template::{self, Filling, Kept, Look, Table};

pub fn database(trial: &Trial) -> Vec<Finding> {
    let (config, server) = (trial.config, &trial.config.server);
    if let Dsn::Sqlite(path) = &config.pdo.dsn
        && trial.given.contains(path)
    {
        // Not the owner's before the start, and read by it then.
        return Vec::new();
    }
    // One more than fit, so that somebody learns of those that do not.
    let Look { rows, narrow } =
        match template::look(&config.pdo, server.table_size.saturating_add(1)) {
            Ok(look) => look,
            Err(error) => {
                let kept = Kept::of(config);
                let path = kept.path.display();
                let nor = match kept.read() {
                    // A start goes on with those, and asks the database until it answers.
                    Ok(Some(_)) => {
                        let what = [
                            format!("{error}; the templates kept in {path} are used meanwhile"),
                            format!("{error}；暂时使用保存在 {path} 中的模板"),
                        ];
                        let todo = [
                            "see to the database: it is asked until it answers",
                            "检查数据库：会反复询问直到应答",
                        ];
                        return vec![Finding::warning("pdo.dsn", what, todo)];
                    }
                    Ok(None) => String::new(),
                    Err(why) => format!("; nor can those be used that were kept in {path}: {why}"),
                };
                let (subject, todo) = match &config.pdo.dsn {
                    Dsn::Mysql { .. } => (
                        "pdo.dsn, pdo.username, pdo.password, pdo.table_prefix",
                        ["correct the section [pdo], or the database", "改正 [pdo] 一节，或数据库"],
                    ),
                    Dsn::Sqlite(_) => (
                        "pdo.dsn, pdo.table_prefix",
                        [
                            "name a template database there, or one that is yet to be made",
                            "在此指定模板数据库，或尚不存在的文件",
                        ],
                    ),
                };
                return vec![Finding::wrong(subject, plain(format!("{error}{nor}")), todo)];
            }
        };
    let mut findings = Vec::new();
    if !narrow.is_empty() {
        let columns = narrow.join(", ");
        let what = [
            format!(
                "not every character fits into the template table, whose charset is not utf8mb4: {columns}"
            ),
            format!("模板表的字符集不是 utf8mb4，容纳不了所有字符：{columns}"),
        ];
        let todo = [
            "ALTER TABLE ... CONVERT TO CHARACTER SET utf8mb4",
            "执行 ALTER TABLE ... CONVERT TO CHARACTER SET utf8mb4",
        ];
        findings.push(Finding::warning("pdo.dsn", what, todo));
    }
    let table = Table::new(server.table_size, server.template_size, Filling::of(&config.wechat));
    let todo = [
        "see mega NAME template check; for one that is left out raise server.table_size or server.template_size",
        "参见 mega NAME template check；若有模板未载入，请增大 server.table_size 或 server.template_size",
    ];
    let warnings = table.replace_all(rows, table.terms()).warnings.into_iter();
    findings.extend(warnings.map(|line| Finding::warning("the templates", plain(line), todo)));
    findings
}
