//! What a token goes through, with a clock of the tests' own.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn use_token(refresh: &mut Refresh, now: Instant) -> Arc<Token> {
    match refresh.need(now) {
        Need::Use(token) => token,
        other => panic!("{other:?}"),
    }
}

fn without(refresh: &mut Refresh, now: Instant) -> NoToken {
    match refresh.need(now) {
        Need::GoWithout(why) => why,
        other => panic!("{other:?}"),
    }
}

fn fetch(refresh: &mut Refresh, now: Instant) -> Fetch {
    match refresh.need(now) {
        Need::Fetch(fetch) => fetch,
        other => panic!("{other:?}"),
    }
}

fn grant(refresh: &mut Refresh, text: &str, now: Instant) -> Arc<Token> {
    let fetch = fetch(refresh, now);
    refresh.granted(fetch, text, 7200, now);
    use_token(refresh, now)
}

fn fault() -> NoToken {
    NoToken { lack: Lack::Config, errcode: Some(40125), text: "40125".into() }
}

#[test]
fn whatever_comes_of_a_call_the_next_is_ten_seconds_later() {
    for call in [Call::Unanswered, Call::Answered] {
        let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
        let fetch = fetch(&mut refresh, start);
        assert!(matches!(refresh.need(start), Need::Wait), "one fetch at a time");
        refresh.denied(fetch, call, fault(), start);
        assert_eq!(without(&mut refresh, start + 9 * SECOND), fault());
        assert!(matches!(refresh.need(start + 10 * SECOND), Need::Fetch(_)));
    }
    let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
    let token = grant(&mut refresh, "a", start);
    assert_eq!(refresh.refuse(&token, 40001, "40001 no"), Refusal::OfThisToken);
    let why = without(&mut refresh, start + 2 * SECOND);
    let text = "the access token is refused: 40001 no; the next is fetched in 9 s";
    assert_eq!((why.lack, why.text.as_str()), (Lack::NotNow, text));
    assert!(matches!(refresh.need(start + 10 * SECOND), Need::Fetch(Fetch::Plain)));
}

#[test]
fn a_call_that_was_never_sent_is_tried_again_soon() {
    let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
    let fetch = fetch(&mut refresh, start);
    refresh.denied(fetch, Call::Unsent, fault(), start);
    without(&mut refresh, start);
    assert!(matches!(refresh.need(start + SECOND), Need::Fetch(_)));
}

#[test]
fn a_refusal_of_the_token_that_replaced_a_refused_one_is_a_fault_of_the_account() {
    let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
    let first = grant(&mut refresh, "a", start);
    assert_eq!(refresh.refuse(&first, 40001, "no"), Refusal::OfThisToken);
    assert_eq!(refresh.refuse(&first, 40001, "no"), Refusal::OfThisToken);
    let second = grant(&mut refresh, "b", start + 10 * SECOND);
    assert_eq!(refresh.refuse(&first, 40001, "no"), Refusal::OfThisToken, "an old one");
    assert_eq!(refresh.refuse(&second, 40001, "no"), Refusal::OfTheAccount);
    assert_eq!(refresh.refuse(&second, 40001, "no"), Refusal::OfTheAccount, "the next worker");
    assert_eq!(without(&mut refresh, start + 11 * SECOND).lack, Lack::Config);
    let third = grant(&mut refresh, "c", start + 20 * SECOND);
    assert_eq!(refresh.refuse(&second, 40001, "no"), Refusal::OfThisToken, "a late one");
    third.accept();
    assert_eq!(refresh.refuse(&third, 40001, "no"), Refusal::OfThisToken, "it was good once");
}

#[test]
fn a_renewal_is_no_replacement_of_a_refused_token() {
    let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
    let first = grant(&mut refresh, "a", start);
    refresh.refuse(&first, 40001, "no");
    grant(&mut refresh, "b", start + 10 * SECOND);
    let later = start + 7200 * SECOND;
    let renewal = refresh.renew(later).unwrap();
    refresh.granted(renewal, "c", 7200, later);
    let third = use_token(&mut refresh, later);
    assert_eq!(refresh.refuse(&third, 40001, "no"), Refusal::OfThisToken);
}

#[test]
fn a_token_is_renewed_once_in_its_last_five_minutes_while_the_old_one_is_used() {
    let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
    grant(&mut refresh, "a", start);
    assert_eq!(refresh.renew_at(), Some(start + 6900 * SECOND));
    assert_eq!(refresh.renew(start + 6899 * SECOND), None);
    let due = start + 6900 * SECOND;
    assert_eq!(refresh.renew(due), Some(Fetch::Plain));
    assert_eq!(refresh.renew(due), None, "one at a time");
    assert_eq!(&*use_token(&mut refresh, due).text, "a");
    refresh.denied(Fetch::Plain, Call::Answered, fault(), due);
    assert_eq!(&*use_token(&mut refresh, due + SECOND).text, "a");
    assert_eq!(refresh.renew_at(), Some(due + 10 * SECOND));
    assert_eq!(refresh.renew(due + 10 * SECOND), Some(Fetch::Plain));
    refresh.granted(Fetch::Plain, "b", 7200, due + 10 * SECOND);
    assert_eq!(&*use_token(&mut refresh, due + 10 * SECOND).text, "b");
}

#[test]
fn a_token_lives_between_a_minute_and_two_hours_whatever_is_said() {
    for (said, lasts) in [(0, 60), (59, 60), (3600, 3600), (1 << 63, 7200), (u64::MAX, 7200)] {
        let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
        let fetch = fetch(&mut refresh, start);
        refresh.granted(fetch, "a", said, start);
        use_token(&mut refresh, start + (lasts - 1) * SECOND);
        assert!(matches!(refresh.need(start + lasts * SECOND), Need::Fetch(_)), "{said}");
    }
}

/// Up to where the next call is a forced one; returns when.
fn until_forced(refresh: &mut Refresh, start: Instant) -> Instant {
    let token = grant(refresh, "a", start);
    assert_eq!(refresh.refuse(&token, 40001, "no"), Refusal::OfThisToken);
    let plain = fetch(refresh, start + 10 * SECOND);
    assert_eq!(plain, Fetch::Plain);
    refresh.granted(plain, "a", 7200, start + 10 * SECOND);
    let why = without(refresh, start + 10 * SECOND);
    assert_eq!((why.lack, why.errcode), (Lack::NotNow, Some(40001)));
    assert!(why.text.contains("issues the access token that it refuses: no"), "{}", why.text);
    start + 20 * SECOND
}

#[test]
fn a_refused_token_that_comes_back_is_replaced_by_force_once_in_73_minutes() {
    let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
    let mut now = until_forced(&mut refresh, start);
    assert_eq!(fetch(&mut refresh, now), Fetch::Forced);
    refresh.granted(Fetch::Forced, "b", 7200, now);
    let token = use_token(&mut refresh, now);
    assert_eq!(refresh.refuse(&token, 40001, "no"), Refusal::OfTheAccount);
    now += 10 * SECOND;
    // Force is not allowed again, so the same token is tried again.
    let token = grant(&mut refresh, "b", now);
    assert_eq!(refresh.refuse(&token, 40001, "no"), Refusal::OfTheAccount);
    now += 73 * 60 * SECOND;
    assert_eq!(fetch(&mut refresh, now), Fetch::Plain);
    refresh.granted(Fetch::Plain, "b", 7200, now);
    assert_eq!(fetch(&mut refresh, now + 10 * SECOND), Fetch::Forced);
}

#[test]
fn a_force_refresh_that_was_cut_off_does_not_block_the_next_for_long() {
    let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
    let mut now = until_forced(&mut refresh, start);
    assert_eq!(fetch(&mut refresh, now), Fetch::Forced);
    refresh.denied(Fetch::Forced, Call::Unanswered, fault(), now);
    // Perhaps it was done.
    now += 31 * SECOND;
    assert_eq!(fetch(&mut refresh, now), Fetch::Plain);
    refresh.granted(Fetch::Plain, "a", 7200, now);
    now += 10 * SECOND;
    assert_eq!(fetch(&mut refresh, now), Fetch::Forced);
    refresh.denied(Fetch::Forced, Call::Unsent, fault(), now);
    assert_eq!(fetch(&mut refresh, now + SECOND), Fetch::Forced, "nothing was sent");
}

#[test]
fn the_classic_token_is_never_forced() {
    let (mut refresh, start) = (Refresh::new(TokenSource::Classic), Instant::now());
    let token = grant(&mut refresh, "a", start);
    refresh.refuse(&token, 40001, "no");
    let again = grant(&mut refresh, "a", start + 10 * SECOND);
    assert_eq!(refresh.refuse(&again, 40001, "no"), Refusal::OfTheAccount);
    assert_eq!(fetch(&mut refresh, start + 20 * SECOND), Fetch::Plain);
}

#[test]
fn a_day_of_refusals_does_not_use_up_the_classic_tokens_calls() {
    let (mut refresh, start) = (Refresh::new(TokenSource::Classic), Instant::now());
    for second in 0..86_400 {
        let now = start + second * SECOND;
        if let Need::Fetch(fetch) = refresh.need(now) {
            refresh.count(16 * 3_600 + u64::from(second));
            refresh.granted(fetch, &second.to_string(), 7200, now);
        }
        if let Need::Use(token) = refresh.need(now) {
            refresh.refuse(&token, 40001, "no");
        }
    }
    let calls = refresh.calls_today(16 * 3_600);
    assert!((1_800..2_000).contains(&calls), "{calls}");
    assert_eq!(refresh.calls_today(40 * 3_600), 0, "the next day");
}

#[test]
fn a_token_of_an_old_secret_goes_on_until_the_next_may_be_fetched_and_no_longer() {
    let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
    grant(&mut refresh, "old", start);
    refresh.outdate(start + 4 * SECOND);
    use_token(&mut refresh, start + 9 * SECOND);
    assert_eq!(refresh.renew_at(), Some(start + 10 * SECOND));
    // Once, and with what was fetched nothing is wrong.
    let new = grant(&mut refresh, "new", start + 10 * SECOND);
    assert_eq!(&*new.text, "new");
    assert!(refresh.renew(start + 100 * SECOND).is_none());
    // Long after the last call it is dropped at once.
    refresh.outdate(start + 100 * SECOND);
    let fetch = fetch(&mut refresh, start + 100 * SECOND);
    refresh.denied(fetch, Call::Answered, fault(), start + 100 * SECOND);
    assert_eq!(without(&mut refresh, start + 101 * SECOND), fault());
}

#[test]
fn a_token_that_was_being_fetched_with_an_old_secret_is_outdated_when_it_comes() {
    let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
    let under_way = fetch(&mut refresh, start);
    refresh.outdate(start + SECOND);
    refresh.granted(under_way, "old", 7200, start + 2 * SECOND);
    use_token(&mut refresh, start + 11 * SECOND);
    let new = grant(&mut refresh, "new", start + 12 * SECOND);
    assert_eq!(&*new.text, "new");
    assert!(refresh.renew(start + 100 * SECOND).is_none());
}

#[test]
fn what_was_said_of_an_old_secret_is_forgotten() {
    let (mut refresh, start) = (Refresh::new(TokenSource::Stable), Instant::now());
    let under_way = fetch(&mut refresh, start);
    refresh.denied(under_way, Call::Answered, fault(), start);
    refresh.outdate(start + SECOND);
    let why = without(&mut refresh, start + 2 * SECOND);
    let text = "wechat.app_secret has changed; the next is fetched in 9 s";
    assert_eq!((why.lack, why.text.as_str()), (Lack::NotNow, text));
    // T1 holds.
    assert!(matches!(refresh.need(start + 10 * SECOND), Need::Fetch(Fetch::Plain)));
}

#[test]
fn what_earlier_runs_have_called_counts_in_this_one() {
    let (now, noon) = (Instant::now(), 20_000 * 86_400);
    let calls = |refresh: &mut Refresh| {
        let calls = Calls { day: 20_000, count: 5, last: noon - 3, ..Calls::default() };
        refresh.go_on(&calls, now, noon);
    };
    let mut classic = Refresh::new(TokenSource::Classic);
    calls(&mut classic);
    assert_eq!(classic.calls_today(noon), 5);
    assert!(without(&mut classic, now + 6 * SECOND).text.ends_with("the next is fetched in 2 s"));
    fetch(&mut classic, now + 7 * SECOND);
    // A repeated call for a stable token replaces none.
    let mut stable = Refresh::new(TokenSource::Stable);
    calls(&mut stable);
    fetch(&mut stable, now);
    let told = stable.calls("wx", Fetch::Plain, noon + 1, now);
    assert_eq!((told.day, told.count, told.last, told.forced), (20_000, 6, noon + 1, 0));
    // A clock that was set back since, and a day that has ended.
    let mut classic = Refresh::new(TokenSource::Classic);
    let future = Calls { day: 19_999, count: 9, last: noon + 9_000, ..Calls::default() };
    classic.go_on(&future, now, noon);
    assert_eq!(classic.calls_today(noon), 0);
    fetch(&mut classic, now + 10 * SECOND);
}
