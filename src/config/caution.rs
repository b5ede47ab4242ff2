//! What a configuration allows that its operator may not have meant: shown by `check`, and logged at
//! the start. Looks at the file's mode and at who runs this, and changes nothing.

use super::Config;
use std::os::unix::fs::PermissionsExt;

impl Config {
    /// One line each.
    pub fn cautions(&self) -> Vec<String> {
        let mode = std::fs::metadata(&self.file).map_or(0, |file| file.permissions().mode());
        self.cautions_for(mode, rustix::process::geteuid().is_root())
    }

    fn cautions_for(&self, mode: u32, root: bool) -> Vec<String> {
        let file = self.file.display();
        // Where only a fake WeChat is asked, the account is none.
        let account = self.wechat.api_hosts.iter().any(|host| !host.starts_with("http://"));
        let secrets = account || !self.pdo.password.is_empty();
        let mut cautions = Vec::new();
        if mode & 0o004 != 0 && secrets {
            cautions.push(format!(
                "{file}: everybody on this machine can read the secrets in it; run: chmod 640 {file}"
            ));
        }
        let public = self.server.listen.iter().filter(|address| !address.ip().is_loopback());
        for address in public.filter(|_| self.server.allow.is_empty()) {
            cautions.push(format!(
                "{file}: server.listen[] = {address}: everybody who reaches this address may send \
                 messages; name the clients' networks in server.allow[]"
            ));
        }
        if root && self.setting.user.is_none() {
            cautions.push(format!(
                "{file}: mega would run as root, which it does not need; name a user of its own in \
                 setting.user"
            ));
        }
        cautions
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use std::path::Path;

    fn cautions(more: &str, mode: u32, root: bool) -> Vec<String> {
        let text = format!("[wechat]\napp_id = a\napp_secret = s\n{more}");
        let file = Path::new("/x/conf/w.ini");
        read::config(text.as_bytes(), file, Path::new("/x")).unwrap().cautions_for(mode, root)
    }

    #[test]
    fn each_danger_is_named_and_nothing_else() {
        assert!(cautions("", 0o640, false).is_empty());
        assert!(cautions("", 0o644, false)[0].contains("chmod 640 /x/conf/w.ini"));
        assert!(cautions("api_hosts = http://127.0.0.1:1", 0o644, false).is_empty());
        let public = "[server]\nlisten[] = 127.0.0.1:1\nlisten[] = [::]:2\n";
        let found = cautions(public, 0o640, false);
        assert!(found.len() == 1 && found[0].contains("[::]:2"), "{found:?}");
        assert!(cautions(&format!("{public}allow[] = 10.0.0.0/8"), 0o640, false).is_empty());
        assert!(cautions("", 0o640, true)[0].contains("setting.user"));
        assert!(cautions("[setting]\nuser = nobody", 0o640, true).is_empty());
    }
}
