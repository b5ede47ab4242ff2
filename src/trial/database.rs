//! Whether the templates can be loaded, by loading them into nowhere. As whom the daemon is to run.

use super::{Finding, Trial, plain};
use crate::config::{Config, Dsn};
use crate::queue::disk::Folder;
use crate::queue::inspect;
use crate::template::{self, DatabaseError, Filling, Instead, Kept, Look, Table};

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
            Err(error) => return without(config, &error),
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

/// What a start comes to that gets no templates from the database.
fn without(config: &Config, error: &DatabaseError) -> Vec<Finding> {
    let kept = Kept::of(config);
    let path = kept.path.display();
    match kept.instead_of(error) {
        Instead::Use(_) => {
            let what = [
                format!("{error}; the templates kept in {path} are used meanwhile"),
                format!("{error}；暂时使用保存在 {path} 中的模板"),
            ];
            let todo = [
                "see to the database: it is asked until it answers",
                "检查数据库：会反复询问直到应答",
            ];
            vec![Finding::warning("pdo.dsn", what, todo)]
        }
        Instead::Create if waits(config) => {
            let what = [
                format!(
                    "{error}: a start creates it without a template, and the messages in the queue would find none"
                ),
                format!("{error}：启动时会新建空库，队列中的消息将找不到模板"),
            ];
            let todo = [
                "correct pdo.dsn, or store the templates first: mega NAME template put",
                "改正 pdo.dsn，或先保存模板：mega NAME template put",
            ];
            vec![Finding::warning("pdo.dsn", what, todo)]
        }
        Instead::Create => Vec::new(),
        Instead::Refuse(why) => {
            let (subject, todo) = match &config.pdo.dsn {
                Dsn::Mysql { .. } => (
                    "pdo.dsn, pdo.username, pdo.password, pdo.table_prefix",
                    ["correct the section [pdo], or the database", "改正 [pdo] 一节，或数据库"],
                ),
                Dsn::Sqlite(_) => (
                    "pdo.dsn, pdo.table_prefix",
                    [
                        "name the file with the templates, or create one: mega NAME template put",
                        "指定存放模板的文件，或新建一个：mega NAME template put",
                    ],
                ),
            };
            vec![Finding::wrong(subject, plain(why), todo)]
        }
    }
}

/// Messages wait in the queue, as far as that can be seen.
fn waits(config: &Config) -> bool {
    let queue = Folder::read_only(&config.server.queue_file_path);
    queue.is_ok_and(|disk| inspect::oldest(&disk).is_some())
}
