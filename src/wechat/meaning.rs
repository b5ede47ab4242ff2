//! What WeChat's errcodes mean and what to do about them, for people: one table, in English and in
//! Chinese; who shows it picks the language. Covers every code that `errcode` has a class for, and those that are seen beside them.

use crate::class::{Class, TABLE as CLASSES};

struct Meaning {
    errcode: i64,
    text: [&'static str; 2],
}

/// What a code says has happened and what to do, in English and in Chinese, if it is known.
pub fn of(errcode: i64) -> Option<[&'static str; 2]> {
    let at = TABLE.binary_search_by_key(&errcode, |meaning| meaning.errcode).ok()?;
    Some(TABLE[at].text)
}

/// The same of a message that ended so, by the name of its class where WeChat gave no errcode, or one that nobody knows.
pub fn of_end(errcode: Option<i64>, class: &str) -> Option<[&'static str; 2]> {
    let by_class = || CLASSES.iter().find(|row| row.name == class).map(|row| of_class(row.class));
    errcode.and_then(of).or_else(by_class)
}

fn of_class(class: Class) -> [&'static str; 2] {
    match class {
        Class::Ok => ["delivered", "已送达"],
        Class::Token => [
            "the token was refused; see status and the log",
            "access_token 被拒绝；查看 status 与日志",
        ],
        Class::Later => [
            "WeChat was busy at every attempt; requeue later",
            "每次重试时微信都繁忙；稍后重新入队",
        ],
        Class::Once => [
            "refused twice, for a reason that is not known; see errmsg, and set its class in [errcode]",
            "两次被拒，原因未知；查看 errmsg，并在 [errcode] 中设置其类别",
        ],
        Class::Rate => {
            ["a limit of the account was reached; requeue later", "达到账号的限额；稍后重新入队"]
        }
        Class::OpenidRate => [
            "this user was sent too many messages; requeue later",
            "向该用户发送过于频繁；稍后重新入队",
        ],
        Class::Permanent => {
            ["WeChat refuses this message for good; see errmsg", "微信永久拒绝该消息；查看 errmsg"]
        }
        Class::Config => [
            "the account or the configuration is at fault; mend it, then requeue",
            "账号或配置有误；修正后重新入队",
        ],
        Class::Unreachable => [
            "WeChat was not reached, nothing was sent; mega NAME doctor tells why, then requeue",
            "未连上微信，消息没有发出；用 mega NAME doctor 查找原因后重新入队",
        ],
        Class::Unclear => [
            "WeChat gave no usable answer at every attempt, it may have the message; requeue when it answers again",
            "每次重试微信都没有可用的应答，消息可能已送达；恢复后重新入队",
        ],
        Class::Data => [
            "the message cannot be made: its template is gone, or a variable is missing; see errmsg, mend it, then requeue",
            "无法生成消息：模板已不存在或缺少变量；查看 errmsg，修正后重新入队",
        ],
        Class::Internal => [
            "a fault of mega; the log tells it, requeue and report it",
            "mega 自身的故障；日志有记录，重新入队并反馈",
        ],
        Class::Unknown => [
            "WeChat may have it, and would not recognise a repeat; ask the user before requeueing",
            "微信可能已收到，且不再识别重复；重新入队前先向用户确认",
        ],
        Class::Cancelled => [
            "an operator ended it before its turn; requeue queues it again",
            "由操作员在发送前取消；可重新入队",
        ],
    }
}

macro_rules! table {
    ($($errcode:literal $english:literal $chinese:literal)*) => {
        &[$(Meaning { errcode: $errcode, text: [$english, $chinese] }),*]
    };
}

/// In the order of the codes.
#[rustfmt::skip]
const TABLE: &[Meaning] = table! {
    -1 "WeChat is busy; requeue later" "微信系统繁忙；稍后重新入队"
    0 "delivered" "已送达"
    40001 "the token or the secret is wrong; check app_id and app_secret, and that nobody else fetches /token" "access_token 或 AppSecret 错误；检查 app_id 与 app_secret，并确认没有其他程序在获取 token"
    40002 "the grant type is wrong; check token_source" "凭证类型不合法；检查 token_source"
    40003 "the openid is not of this account; check where it came from" "openid 不属于本公众号；检查其来源"
    40013 "the appid is wrong; check app_id" "AppID 不合法；检查 app_id"
    40014 "the token is wrong; check that nobody else fetches /token" "access_token 不合法；确认没有其他程序在获取 token"
    40033 "the text holds characters that WeChat refuses; check the template and the data" "请求含有不合法的字符；检查模板与数据"
    40034 "the message's member is not allowed; check the template" "参数不合法；检查模板"
    40035 "a parameter is wrong; check the template" "参数不合法；检查模板"
    40036 "the template's id has a wrong length; check the template" "template_id 长度不合法；检查模板"
    40037 "the template's id is wrong or was deleted; check it in the WeChat console, then requeue" "template_id 不正确或已被删除；在公众平台核对后重新入队"
    40038 "the request's format is wrong; check the template" "请求格式不合法；检查模板"
    40039 "the URL has a wrong length; check the template's url" "URL 长度不合法；检查模板中的 url"
    40066 "the URL is wrong; check api_hosts" "URL 不合法；检查 api_hosts"
    40097 "a parameter is wrong; check the template" "参数错误；检查模板"
    40125 "the secret is wrong; check app_secret" "AppSecret 无效；检查 app_secret"
    40164 "this machine's address is not on the account's list; add it in the WeChat console" "本机 IP 不在白名单中；在公众平台添加"
    40165 "the mini program's page path is wrong; check the template's pagepath" "小程序 pagepath 不正确；检查模板中的 pagepath"
    40166 "the mini program's appid is wrong or not linked to the account; check the template's miniprogram" "小程序 appid 不正确或未与公众号关联；检查模板中的 miniprogram"
    40173 "the mini program cannot be opened; check the template's miniprogram" "小程序跳转参数不正确；检查模板中的 miniprogram"
    40241 "delivered before: WeChat dropped the repeat" "此前已送达：微信忽略了重复的消息"
    40243 "the secret is frozen; unfreeze it in the WeChat console" "AppSecret 已被冻结；在公众平台解冻"
    40249 "the client_msg_id is wrong; report this to mega's authors" "client_msg_id 不合法；请反馈给 mega 的作者"
    41001 "the token is missing; see the log" "缺少 access_token；查看日志"
    41002 "the appid is missing; check app_id" "缺少 AppID；检查 app_id"
    41004 "the secret is missing; check app_secret" "缺少 AppSecret；检查 app_secret"
    41009 "the openid is missing; check the template's touser" "缺少 openid；检查模板中的 touser"
    41011 "a required parameter is missing; check the template" "缺少必填参数；检查模板"
    41028 "the form id is wrong or expired; nothing to do" "form_id 不正确或已过期；无需处理"
    41030 "the page is wrong; check the template's page" "page 不正确；检查模板中的 page"
    42001 "the token has expired; see the log" "access_token 已过期；查看日志"
    43001 "WeChat wants GET; check api_hosts" "需要 GET 请求；检查 api_hosts"
    43002 "WeChat wants POST; check api_hosts" "需要 POST 请求；检查 api_hosts"
    43003 "WeChat wants HTTPS; check api_hosts" "需要 HTTPS 请求；检查 api_hosts"
    43004 "the user does not follow the account; nothing to do but to stop writing to that user" "用户未关注公众号；无需处理，不再向该用户发送即可"
    43019 "the user is on the account's black list; take the user off it in the WeChat console, then requeue" "用户在黑名单中；在公众平台移出后重新入队"
    43100 "the template's quota is used up; requeue when it is renewed" "模板的发送额度已用完；额度恢复后重新入队"
    43101 "the user refuses this message; nothing to do until the user subscribes" "用户拒收该消息；等待用户重新订阅"
    43102 "the template is not allowed to this account; check it in the WeChat console" "公众号无权使用该模板；在公众平台核对"
    43104 "the appid does not match; check app_id" "AppID 不匹配；检查 app_id"
    43106 "the account's subscription messages are restricted; see the WeChat console" "公众号的订阅消息能力受限；查看公众平台"
    43116 "the template was banned; choose another" "模板已被封禁；更换模板"
    43117 "this user was sent too many messages; requeue later" "向该用户发送过于频繁；稍后重新入队"
    44002 "the request was empty; check the template" "请求内容为空；检查模板"
    45002 "the text is too long; shorten the template or the data" "内容超过长度限制；缩短模板或数据"
    45009 "the account's calls of the day are used up; requeue tomorrow, or clear the quota in the WeChat console" "当日调用次数已用完；次日重新入队，或在公众平台清零"
    45011 "too many calls a minute; set max_per_second" "调用过于频繁；设置 max_per_second"
    45012 "the template's title is too long; shorten it" "模板标题过长；缩短标题"
    45013 "a name is too long; shorten it" "名称过长；缩短名称"
    45014 "a value is too long; shorten the data" "字段过长；缩短数据"
    45015 "the user has not been active for too long; nothing to do" "用户互动已超过时限；无需处理"
    45047 "too many messages to customers at once; set max_per_second" "客服消息下行条数超限；设置 max_per_second"
    45102 "the account's calls are limited; requeue later" "账号调用受限；稍后重新入队"
    45103 "the account is restricted; see the WeChat console" "账号受限；查看公众平台"
    45109 "the account is restricted; see the WeChat console" "账号受限；查看公众平台"
    46004 "the user does not exist; check where the openid came from" "用户不存在；检查 openid 的来源"
    47001 "WeChat cannot read the message; check the template's JSON" "数据格式错误；检查模板的 JSON"
    47002 "a value is encoded wrongly; check the template and the data" "编码错误；检查模板与数据"
    47003 "a value does not fit the template's field; check the data against the template" "参数值不符合模板字段的要求；按模板检查数据"
    48001 "the account may not send template messages; apply for it in the WeChat console" "公众号没有模板消息权限；在公众平台申请"
    48002 "the user refuses messages of the account; nothing to do" "用户拒收该公众号的消息；无需处理"
    48004 "the interface was banned; see the WeChat console" "接口被封禁；查看公众平台"
    48008 "the account has no right to this kind of message; see the WeChat console" "公众号没有该类消息的权限；查看公众平台"
    48009 "the account has no right to this template; see the WeChat console" "公众号没有该模板的权限；查看公众平台"
    48011 "the content is against the rules; change the template or the data" "内容违规；修改模板或数据"
    50001 "the account may not use this interface; see the WeChat console" "公众号无权使用该接口；查看公众平台"
    50002 "the account is restricted; see the WeChat console" "账号受限；查看公众平台"
    50003 "the account is abnormal; see the WeChat console" "账号异常；查看公众平台"
    50004 "the account may not use this interface; see the WeChat console" "公众号无权使用该接口；查看公众平台"
    50005 "the user does not follow the account; nothing to do" "用户未关注公众号；无需处理"
    61003 "the component is not authorised by the account; authorise it again" "公众号未授权第三方平台；重新授权"
    61004 "this machine's address is not registered; add it in the WeChat console" "本机 IP 未登记；在开放平台添加"
    61005 "the component's ticket has expired; see the WeChat console" "component ticket 已过期；查看开放平台"
    61006 "the component's ticket is wrong; see the WeChat console" "component ticket 不合法；查看开放平台"
    61007 "the account has not given this right to the component; authorise it again" "公众号未向第三方平台授予该权限；重新授权"
    61014 "the component's token does not fit; see the WeChat console" "component token 不匹配；查看开放平台"
    61015 "the component's type does not fit; see the WeChat console" "第三方平台类型不符；查看开放平台"
    61016 "the account's state does not allow it; see the WeChat console" "账号状态不允许；查看公众平台"
    61017 "the component's state does not allow it; see the WeChat console" "第三方平台状态不允许；查看开放平台"
    61023 "the refresh token is wrong; authorise again" "refresh_token 无效；重新授权"
    61450 "WeChat is busy; requeue later" "微信系统错误；稍后重新入队"
    61451 "a parameter is wrong; check the template" "参数错误；检查模板"
    61503 "WeChat is busy; requeue later" "微信系统繁忙；稍后重新入队"
    89501 "the account has not been confirmed; see the WeChat console" "账号未确认；查看公众平台"
    89502 "the account's owner has refused the call; see the WeChat console" "管理员拒绝了此次调用；查看公众平台"
    89503 "the account's owner must confirm this machine's address; confirm it in the WeChat console" "需要管理员确认本机 IP；在公众平台确认"
    89504 "the address is being confirmed; wait for the account's owner" "本机 IP 正在等待管理员确认；请等待"
    89505 "the address is being confirmed; wait for the account's owner" "本机 IP 正在等待管理员确认；请等待"
    89506 "the account's owner refused this machine's address twice; wait 24 hours" "管理员两次拒绝了本机 IP；24 小时后再试"
    89507 "the account's owner refused this machine's address; wait an hour" "管理员拒绝了本机 IP；1 小时后再试"
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wechat::errcode::{Class, Errcodes};

    #[test]
    fn every_code_that_has_a_class_has_a_meaning_in_both_languages() {
        let errcodes = Errcodes::new(&[]);
        let listed = (-1..100_000).filter(|code| errcodes.class(*code) != Class::Once);
        let missing: Vec<i64> = listed.filter(|code| of(*code).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert!(TABLE.is_sorted_by_key(|meaning| meaning.errcode));
        for row in CLASSES {
            let [english, chinese] = of_end(None, row.name).unwrap();
            assert!(english.is_ascii() && !chinese.is_ascii(), "{}", row.name);
            assert!(row.class == Class::Ok || english.contains(';'), "what to do: {english}");
        }
        assert_eq!(of_end(Some(43004), "permanent"), of(43004), "the errcode says more");
        assert_eq!(of_end(Some(123_456), "once"), of_end(None, "once"));
        assert_eq!(of_end(None, "old list"), None);
        for Meaning { errcode, text: [english, chinese] } in TABLE {
            assert!(english.is_ascii() && !chinese.is_ascii(), "{errcode}");
        }
    }
}
