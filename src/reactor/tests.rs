//! The reactor's turns one by one, with the test in the place of the spool and the store.

use super::agenda::SWEEP;
use super::*;
use crate::template::Filling;
use crate::traffic::BATCHES;
use crate::traffic::batch::{Batch, Kind, Reply, UNANSWERED};
use crate::traffic::mailbox::{Mail, Mailbox};
use crate::wechat::errcode::Errcodes;
use crate::wechat::token::Tokens;
use crate::wire::frame::{Split, split};
use crossbeam_channel::{Receiver, bounded};
use std::io::{Read, Write};
use std::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(20);

struct Bench {
    reactor: Reactor,
    events: Events,
    chunk: Vec<u8>,
    mailbox: Mailbox,
    spool: Receiver<Event>,
    store: Receiver<Tset>,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// With room for so many events in the spool's channel.
    fn new(room: usize, change: impl FnOnce(&mut Config)) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::demo(folder.path()).unwrap();
        change(&mut config);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&listener, 1000).unwrap();
        let address = listener.local_addr().unwrap();
        let admin = std::os::unix::net::UnixListener::bind(folder.path().join("a")).unwrap();
        let table = Table::new(1, 1000, Filling::of(&config.wechat));
        table.insert(b"k", "{}");
        let (poll, waker) = poll().unwrap();
        let (mailbox, letters) = Mailbox::new(waker);
        let (to_spool, spool) = bounded(room);
        let (to_store, store) = bounded(1);
        let errcodes = Arc::new(Errcodes::new(&[]));
        let links = Links {
            tokens: Arc::new(Tokens::new(&config, errcodes)),
            config: Arc::new(config),
            table: Arc::new(table),
            stats: Arc::new(Stats::default()),
            spool: to_spool,
            store: to_store,
            reload: Box::new(|_| {}),
            stop: Box::new(|_, _| {}),
            ledger: bounded(1).0,
            listen: vec![address],
        };
        let reactor = Reactor::new(poll, letters, vec![listener], admin, links).unwrap();
        let (events, chunk) = (Events::with_capacity(1024), vec![0; CHUNK]);
        Bench { reactor, events, chunk, mailbox, spool, store, address, _folder: folder }
    }

    fn turn(&mut self) {
        // A turn in which nothing happens ends all the same.
        let soon = Instant::now() + Duration::from_millis(20);
        self.reactor.agenda.sweep_at.get_or_insert(soon);
        self.reactor.turn(&mut self.events, &mut self.chunk).unwrap();
    }

    fn turns_until(&mut self, what: &str, mut is: impl FnMut(&mut Bench) -> bool) {
        let began = Instant::now();
        while !is(self) {
            assert!(began.elapsed() < DEADLINE, "in vain: {what}");
            self.turn();
        }
    }

    fn client(&mut self) -> TcpStream {
        let clients = self.reactor.conns.len();
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        self.turns_until("a client", |bench| bench.reactor.conns.len() > clients);
        stream
    }

    /// The spool's part: every request is answered with 200, every batch goes back.
    fn answer(&mut self, batch: Batch) {
        let reply = |to| Reply { to, code: command::OK, message: "".into(), close: false };
        let replies = batch.requests().map(|request| reply(request.to)).collect();
        self.mailbox.send(Mail::Replies { replies, batches: vec![batch] });
    }
}

fn frames(kind: Kind, opaques: std::ops::Range<u32>, data: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for opaque in opaques {
        let request =
            command::Request { opaque, openid: b"o", key: b"k", id: None, data: data.as_bytes() };
        match kind {
            Kind::Push => command::encode_push(&mut bytes, request),
            Kind::Send => command::encode_send(&mut bytes, request),
        }
    }
    bytes
}

#[test]
fn a_turn_lets_in_a_few_and_the_next_ones_let_in_the_others() {
    let mut bench = Bench::new(1, |_| {});
    let _clients: Vec<_> =
        (0..ACCEPTS + 9).map(|_| TcpStream::connect(bench.address).unwrap()).collect();
    bench.turn();
    assert_eq!(bench.reactor.conns.len(), ACCEPTS);
    assert_eq!(bench.reactor.timeout(), Some(Duration::ZERO));
    bench.turn();
    assert_eq!(bench.reactor.conns.len(), ACCEPTS + 9);
}

#[test]
fn connections_beyond_their_share_of_memory_are_turned_away() {
    let mut bench = Bench::new(1, |config| config.setting.memory_limit = 8 * 3 * CONN_COST);
    let mut clients: Vec<_> = (0..5).map(|_| TcpStream::connect(bench.address).unwrap()).collect();
    clients[4].set_read_timeout(Some(DEADLINE)).unwrap();
    bench.turn();
    assert_eq!(bench.reactor.conns.len(), 3);
    assert_eq!(clients[4].read(&mut [0]).unwrap(), 0);
    drop(clients);
    bench.turns_until("places", |bench| bench.reactor.conns.is_empty());
    assert_eq!(bench.reactor.desk.account.total(), 0);
    bench.client();
}

#[test]
fn half_a_frame_is_looked_at_a_sweep_later_and_not_sooner() {
    let mut bench = Bench::new(1, |_| {});
    let mut client = bench.client();
    client.write_all(&frames(Kind::Push, 0..1, "null")[..9]).unwrap();
    let half = |bench: &mut Bench| bench.reactor.conns.iter().any(|(_, conn)| conn.owes());
    bench.turns_until("half a frame", half);
    bench.reactor.agenda.sweep_at = None;
    client.write_all(b"x").unwrap();
    bench.reactor.turn(&mut bench.events, &mut bench.chunk).unwrap();
    let timeout = bench.reactor.timeout().unwrap();
    assert!(timeout > SWEEP / 2 && timeout <= SWEEP, "{timeout:?}");
}

#[test]
fn results_are_waited_for_only_while_a_batch_is_under_way() {
    let mut bench = Bench::new(1, |_| {});
    let stop = || Mail::Replies { replies: Vec::new(), batches: Vec::new() };
    bench.mailbox.send(stop());
    assert!(!bench.reactor.results_come());
    bench.turn();
    let mut client = bench.client();
    client.write_all(&frames(Kind::Push, 0..1, "null")).unwrap();
    bench.turns_until("a batch", |bench| !bench.reactor.desk.is_idle());
    assert!(!bench.reactor.results_come());
    bench.mailbox.send(stop());
    assert!(bench.reactor.results_come());
}

#[test]
fn what_finds_the_spools_channel_full_is_kept_in_its_order() {
    let mut bench = Bench::new(1, |_| {});
    let mut client = bench.client();
    let other = || Event::Stop { within: Duration::from_secs(77) };
    bench.reactor.desk.links.spool.try_send(other()).unwrap();
    client.write_all(&frames(Kind::Push, 0..1, "null")).unwrap();
    bench.turns_until("a request", |bench| bench.reactor.desk.is_stuck());
    assert!(bench.reactor.timeout().is_some_and(|timeout| timeout <= RETRY));
    bench.mailbox.send(Mail::Stop { now: true });
    for _ in 0..5 {
        bench.turn();
    }
    assert!(matches!(bench.spool.try_recv(), Ok(Event::Stop { within }) if !within.is_zero()));
    bench.turns_until("the batch", |bench| !bench.spool.is_empty());
    assert!(matches!(bench.spool.try_recv(), Ok(Event::Batch(batch)) if batch.single().is_some()));
    bench.turns_until("the order", |bench| !bench.spool.is_empty());
    assert!(matches!(bench.spool.try_recv(), Ok(Event::Stop { within }) if within.is_zero()));
}

#[test]
fn clients_held_back_go_on_in_turn_and_lose_nothing() {
    let mut bench = Bench::new(BATCHES, |_| {});
    const EACH: u32 = 10_000;
    let clients: Vec<_> = (0..4).map(|_| bench.client()).collect();
    let writers: Vec<_> = clients
        .iter()
        .map(|client| {
            let mut client = client.try_clone().unwrap();
            std::thread::spawn(move || {
                let data = format!("[\"{}\"]", "x".repeat(200));
                client.write_all(&frames(Kind::Push, 0..EACH, &data)).unwrap();
                let (mut received, mut next, mut chunk) = (Vec::new(), 0, [0; 4096]);
                while next < EACH {
                    let count = client.read(&mut chunk).unwrap();
                    received.extend_from_slice(&chunk[..count]);
                    while let Split::Frame { payload, size } = split(&received, 1000) {
                        let Ok(command::Command::Result { opaque, .. }) = command::decode(payload)
                        else {
                            panic!("no result");
                        };
                        assert_eq!(opaque, next);
                        next += 1;
                        received.drain(..size);
                    }
                }
            })
        })
        .collect();
    let mut most = 0;
    let done = |bench: &mut Bench| {
        let held = bench.reactor.agenda.spool.len();
        most = most.max(held);
        // All have come to a stop before anything is given back.
        if held == 4 || most == 4 {
            while let Ok(Event::Batch(batch)) = bench.spool.try_recv() {
                bench.answer(batch);
            }
        }
        writers.iter().all(|writer| writer.is_finished())
    };
    bench.turns_until("all results", done);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let (conns, total) = (bench.reactor.conns.len(), bench.reactor.desk.account.total());
    assert!(total <= conns * (CONN_COST + 8 * outbox::FREE), "{total} bytes for {conns} clients");
}

#[test]
fn a_send_is_charged_until_its_result_comes_also_when_its_client_has_gone() {
    let mut bench = Bench::new(1, |_| {});
    let mut client = bench.client();
    client.write_all(&frames(Kind::Send, 0..9, "[1]")).unwrap();
    bench.turns_until("the sends", |bench| !bench.spool.is_empty());
    let Ok(Event::Batch(batch)) = bench.spool.try_recv() else { panic!("no batch") };
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    bench.turns_until("it to be gone", |bench| bench.reactor.conns.is_empty());
    assert!(bench.reactor.desk.account.total() > 9 * account::REQUEST_COST);
    bench.answer(batch);
    bench.turns_until("the account", |bench| bench.reactor.desk.account.total() == 0);
}

#[test]
fn a_client_has_its_share_of_unanswered_requests_and_the_store_its_channel() {
    let mut bench = Bench::new(BATCHES, |_| {});
    let mut client = bench.client();
    let many = UNANSWERED as u32 + 5;
    let mut writer = client.try_clone().unwrap();
    let written =
        std::thread::spawn(move || writer.write_all(&frames(Kind::Send, 0..many, "")).unwrap());
    let mut batches = Vec::new();
    let held = |hold| {
        move |bench: &mut Bench| {
            bench.reactor.conns.iter().any(|(_, conn)| conn.course == Course::Held(hold))
        }
    };
    bench.turns_until("its share", |bench| {
        // The spool takes them in, and has no result yet.
        while let Ok(Event::Batch(batch)) = bench.spool.try_recv() {
            batches.push(batch);
            let back = vec![Batch::default()];
            bench.reactor.desk.account.charge(Part::Batches, back[0].memory());
            bench.mailbox.send(Mail::Replies { replies: Vec::new(), batches: back });
        }
        held(Hold::Results)(bench)
    });
    written.join().unwrap();
    bench.turn();
    let taken: usize = batches.iter().map(|batch| batch.requests().count()).sum();
    let rest = bench.spool.try_iter().count();
    assert!(taken <= UNANSWERED && rest <= 1, "{taken} {rest}");
    let unanswered: Vec<usize> =
        bench.reactor.conns.iter().map(|(_, conn)| conn.unanswered).collect();
    assert_eq!(unanswered, [UNANSWERED]);

    let mut other = bench.client();
    let mut tsets = Vec::new();
    (0..3).for_each(|n| command::encode_tset(&mut tsets, n, b"k"));
    other.write_all(&tsets).unwrap();
    bench.turns_until("no room for the second", held(Hold::Store));
    for n in 0..3 {
        bench.turns_until("an order", |bench| !bench.store.is_empty());
        let Ok(Tset { to, .. }) = bench.store.try_recv() else { panic!("no tset") };
        assert_eq!(to.opaque, n);
    }
    drop(client.shutdown(std::net::Shutdown::Both));
    client.flush().unwrap();
}

#[test]
fn silent_strangers_make_room_for_who_comes_and_who_has_worked_stays() {
    let mut bench = Bench::new(1, |config| config.setting.max_conn = 3);
    let mut worked = bench.client();
    worked.write_all(&frames(Kind::Push, 0..1, "null")).unwrap();
    bench.turns_until("a request", |bench| !bench.spool.is_empty());
    let Ok(Event::Batch(batch)) = bench.spool.try_recv() else { panic!("no batch") };
    bench.answer(batch);
    bench.turns_until("its result", |bench| bench.reactor.desk.account.newcomers == 0);
    assert!(worked.read(&mut [0; 100]).unwrap() > 4);
    let mut silent = [bench.client(), bench.client()];
    // Half a frame is not one, and one that is refused does nothing for its client.
    silent[0].write_all(&frames(Kind::Push, 0..1, "null")[..9]).unwrap();
    bench.turns_until("half a frame", |bench| bench.reactor.conns.iter().any(|(_, c)| c.owes()));
    silent[1].write_all(&frames(Kind::Push, 0..1, "[[]]")).unwrap();
    let refused = |bench: &mut Bench| {
        let stats = &bench.reactor.desk.links.stats;
        stats.refused(Refusal::BadData, &stats.read().account) == 1
    };
    bench.turns_until("a refusal", refused);
    let mut refusal = Vec::new();
    silent[1].read_exact(&mut [0; 4]).unwrap();
    silent[1].set_nonblocking(true).unwrap();
    drop(silent[1].read_to_end(&mut refusal));
    let seen = |client: &mut TcpStream| {
        client.set_nonblocking(true).unwrap();
        client.read(&mut [0]).map_err(|error| error.kind())
    };
    let away = |bench: &mut Bench| {
        let mut client = TcpStream::connect(bench.address).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        bench.turn();
        client.read(&mut [0]).is_ok_and(|count| count == 0)
    };
    assert!(away(&mut bench), "those who came just now have a moment");
    for (nth, seconds) in [(1, 9), (2, 7)] {
        let conn = bench.reactor.conns.get_mut(nth).unwrap();
        conn.newcomer_since = conn.newcomer_since.map(|at| at - Duration::from_secs(seconds));
    }
    bench.reactor.rests_until = Instant::now();
    let _late: Vec<TcpStream> = (0..2)
        .map(|gone| {
            let client = TcpStream::connect(bench.address).unwrap();
            bench.turn();
            assert_eq!(bench.reactor.conns.len(), 3);
            assert_eq!(seen(&mut silent[gone]), Ok(0), "the one that was silent for longest");
            client
        })
        .collect();
    assert!(away(&mut bench), "the next ones have a moment, too");
    assert_eq!(seen(&mut worked), Err(ErrorKind::WouldBlock));
}

#[test]
fn whether_one_more_client_would_be_let_in_is_told() {
    let mut bench = Bench::new(BATCHES, |config| config.setting.max_conn = 2);
    let crowded = |bench: &Bench| bench.reactor.desk.links.stats.crowded().is_some();
    let mut clients = [bench.client(), bench.client()];
    bench.turns_until("both", |bench| bench.reactor.desk.account.clients == 2);
    assert!(!crowded(&bench), "they have done nothing, and make room");
    let _early = TcpStream::connect(bench.address).unwrap();
    bench.turns_until("one to be turned away", |bench| crowded(bench));
    bench.reactor.desk.links.stats.crowd.lock().turned_away = None;
    for client in &mut clients {
        client.write_all(&frames(Kind::Push, 0..1, "null")).unwrap();
        bench.turns_until("a request", |bench| !bench.spool.is_empty());
        let Ok(Event::Batch(batch)) = bench.spool.try_recv() else { panic!("no batch") };
        assert!(!crowded(&bench));
        bench.answer(batch);
        bench.turn();
    }
    bench.turns_until("it to be told", |bench| crowded(bench));
    let [first, _second] = clients;
    drop(first);
    bench.turns_until("room", |bench| !crowded(bench));
    assert_eq!(bench.reactor.desk.account.newcomers, 0);
}
