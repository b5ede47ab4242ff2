//! Whether the addresses can be listened on: each is bound as the daemon would, and let go at once. It never
//! listens, so no client is taken from anybody.

use super::configuration::overlap;
use super::proc::{self, Who};
use super::{Finding, Running, Trial, plain};
use crate::daemon::bound;
use std::io::ErrorKind;
use std::net::SocketAddr;

pub fn listen(trial: &Trial) -> Vec<Finding> {
    let addresses = trial.config.server.listen.iter();
    addresses.filter_map(|address| bind("server.listen[]", *address, trial)).collect()
}

pub fn metrics(trial: &Trial) -> Vec<Finding> {
    let Some(address) = trial.config.metrics.listen else { return Vec::new() };
    // The daemon opens it when it is no longer root.
    if (1..1024).contains(&address.port()) && !trial.owner.ids().0.is_root() {
        let what = plain(format!("{address}: only root may listen on ports below 1024"));
        let todo = [
            "choose a port from 1024 on in metrics.listen",
            "在 metrics.listen 中选 1024 以上的端口",
        ];
        return vec![Finding::wrong("metrics.listen", what, todo)];
    }
    bind("metrics.listen", address, trial).into_iter().collect()
}

fn bind(key: &str, address: SocketAddr, trial: &Trial) -> Option<Finding> {
    let error = bound(address).err()?;
    let what = plain(format!("{address}: {error}"));
    let todo = match error.kind() {
        ErrorKind::AddrInUse => {
            let holders = proc::listeners(address.port());
            if let Some(Running { pid, listens }) = trial.daemon {
                let pid = pid.as_raw_nonzero().get();
                // Whose a port is does not show to everybody.
                if listens.iter().any(|own| overlap(own, &address))
                    || holders.iter().any(|who| who.pid == pid)
                {
                    return None;
                }
            }
            return Some(in_use(key, address, &holders));
        }
        ErrorKind::PermissionDenied => [
            "ports below 1024 need root: start mega as root and name its user in setting.user, or choose a higher one",
            "1024 以下的端口需要 root：以 root 启动并在 setting.user 中指定用户，或换一个更大的端口",
        ],
        ErrorKind::AddrNotAvailable => [
            "this machine has no such address: see ip address, or take 0.0.0.0 for all there are",
            "本机没有这个地址：用 ip address 查看，或用 0.0.0.0 表示所有地址",
        ],
        _ => ["choose another address", "换一个地址"],
    };
    Some(Finding::wrong(key, what, todo))
}

fn in_use(key: &str, address: SocketAddr, holders: &[Who]) -> Finding {
    let holders: Vec<String> = holders.iter().map(Who::to_string).collect();
    let what = match holders.is_empty() {
        true => [
            format!("{address} is in use by another program"),
            format!("{address} 已被其他程序占用"),
        ],
        false => [
            format!("{address} is in use by {}", holders.join("; ")),
            format!("{address} 已被占用：{}", holders.join("；")),
        ],
    };
    let todo = [
        format!("stop that program (ss -ltnp shows it), or choose another port in {key}"),
        format!("停止该程序（用 ss -ltnp 查看），或在 {key} 中换一个端口"),
    ];
    Finding::wrong(key, what, todo)
}
