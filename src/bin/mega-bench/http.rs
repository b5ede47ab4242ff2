//! The bare loop that delivery is compared with: each thread posts the same message to the sandbox
//! over one kept connection, with ureq as it comes (mega puts a connection of its own under it), and
//! does nothing else.

use crate::engine::Load;
use crate::report::Report;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use ureq::Agent;

const BODY: &[u8] = br#"{"client_msg_id":"00000000000000000000000000000000","touser":"bench-000000000000","template_id":"t","data":{"first":{"value":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}}}"#;

pub fn run(address: SocketAddr, load: &Load) -> Result<Report, String> {
    let token = token(address).map_err(|error| format!("{address} gives no token: {error}"))?;
    let url = &format!("http://{address}/cgi-bin/message/template/send?access_token={token}");
    let (asked, started) = (&AtomicU64::new(0), Instant::now());
    let mut report = Report::default();
    let post = |own: &mut Report| -> Result<(), ureq::Error> {
        let agent = Agent::new_with_defaults();
        while asked.fetch_add(1, Ordering::Relaxed) < load.requests
            && started.elapsed() < load.duration
        {
            let since = Instant::now();
            let request = agent.post(url).header("content-type", "application/json");
            let answer = request.send(BODY)?.body_mut().read_to_vec()?;
            let error = (!answer.starts_with(br#"{"errcode":0"#)).then_some(&answer[..]);
            own.note(since.elapsed(), error);
        }
        Ok(())
    };
    let measure = || {
        let mut own = Report::default();
        own.broke = post(&mut own).err().map(|error| format!("{address}: {error}"));
        own
    };
    std::thread::scope(|scope| -> Result<(), String> {
        let threads: Vec<_> = (0..load.connections).map(|_| scope.spawn(measure)).collect();
        for thread in threads {
            report.add(thread.join().map_err(|_| "a thread panicked")?)?;
        }
        Ok(())
    })?;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

fn token(address: SocketAddr) -> Result<String, String> {
    let url = format!(
        "http://{address}/cgi-bin/token?grant_type=client_credential&appid=a&secret=bench-secret"
    );
    let mut answer = ureq::get(url).call().map_err(|error| error.to_string())?;
    let text = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
    let answer: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    answer["access_token"].as_str().map(str::to_owned).ok_or(text)
}
