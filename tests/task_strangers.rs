//! mega-task before a server that answers as mega seldom does: at the wrong moment, or nothing that helps.

use crate::support::desk::{Desk, Running};
use crate::support::{DEADLINE, TEMPLATE, wait_for};
use rustix::net::sockopt::set_tcp_cork;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Instant;

/// A server of one connection at a time.
struct Stranger(TcpListener);

impl Stranger {
    fn new() -> Stranger {
        Stranger(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// A task of `count` people over one connection to it.
    fn arguments(&self, desk: &Desk, count: usize, window: &str) -> Vec<String> {
        let (list, template) = (desk.list(count), desk.folder.path().join("template"));
        std::fs::write(&template, TEMPLATE).unwrap();
        let to = self.0.local_addr().unwrap().to_string();
        let template = template.to_str().unwrap();
        let more = ["--connections", "1", "--window", window, "--template", template];
        desk.task(&to, &list, &more).into_iter().map(str::to_owned).collect()
    }

    fn accept(&self) -> TcpStream {
        let (stream, _) = self.0.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }
}

fn number(stream: &mut TcpStream) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

/// The opaque of the next request.
fn request(stream: &mut TcpStream) -> io::Result<u32> {
    let mut payload = vec![0; number(stream)? as usize];
    stream.read_exact(&mut payload)?;
    let four = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
    Ok(four(4 + four(0) as usize))
}

fn answer(stream: &mut TcpStream, opaque: u32, code: &str, message: &str) -> io::Result<()> {
    let sized = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
    let head = sized(format!("result {code}").as_bytes());
    let payload = [&head[..], &opaque.to_be_bytes(), &sized(message.as_bytes())].concat();
    stream.write_all(&sized(&payload))
}

fn start(desk: &Desk, arguments: &[String]) -> Running {
    desk.start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn an_end_that_comes_with_an_answer_is_seen_at_once() {
    let (stranger, desk) = (Stranger::new(), Desk::new());
    // Nobody is left to go out: who writes to what is closed hears of it.
    let mut child = start(&desk, &stranger.arguments(&desk, 8, "8"));
    let mut stream = stranger.accept();
    let opaques: Vec<u32> = (0..8).map(|_| request(&mut stream).unwrap()).collect();
    // One packet has the answer and the end.
    set_tcp_cork(&stream, true).unwrap();
    answer(&mut stream, opaques[0], "200", "").unwrap();
    drop(stream);
    let began = Instant::now();
    let mut stream = stranger.accept();
    assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
    for _ in 1..8 {
        let opaque = request(&mut stream).unwrap();
        answer(&mut stream, opaque, "200", "").unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn answers_that_say_nothing_are_why_it_waits_in_each_line_and_for_whoever_asks() {
    let (stranger, desk) = (Stranger::new(), Desk::new());
    let arguments = stranger.arguments(&desk, 3, "3");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let lines = desk.folder.path().join("lines");
    let mut command = desk.command(&[&arguments[..], &["--every", "1"]].concat());
    command.stdout(std::fs::File::create(&lines).unwrap()).stderr(Stdio::null());
    let mut child = Running::new(command.spawn().unwrap());
    let mut stream = stranger.accept();
    let unclear = std::thread::spawn(move || {
        while let Ok(opaque) = request(&mut stream) {
            if answer(&mut stream, opaque, "500", "HTTP 502").is_err() {
                break;
            }
        }
    });
    let why = "no usable answer: 500 HTTP 502";
    wait_for("the task to say why it waits", || {
        let shown = desk.run(&["show", "t", "--json"]).stdout;
        let shown: Value = serde_json::from_slice(&shown).unwrap_or_default();
        shown["waits"].as_str().is_some_and(|text| text.starts_with(why))
    });
    wait_for("two lines that say so", || {
        let said = std::fs::read_to_string(&lines).unwrap();
        said.matches(&format!("0 unknown of 3; waits: {why}")).count() >= 2
    });
    child.kill().unwrap();
    unclear.join().unwrap();
}
