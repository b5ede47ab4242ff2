//! The head of a request, as far as the metrics need it: which path is asked for. httparse reads it;
//! a body is not read at all, because nothing here takes one.

/// Bytes that a head may have.
pub const LONGEST: usize = 8 * 1024;

/// Headers that a request may have; none of them is looked at.
const HEADERS: usize = 64;

#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    pub path: String,
    /// HEAD: everything but the body.
    pub head_only: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    NotHttp,
    TooLong,
    Method,
}

/// What is asked for; None: the head has not come yet.
pub fn read(bytes: &[u8]) -> Result<Option<Asked>, Refused> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() >= LONGEST => return Err(Refused::TooLong),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refused::TooLong),
        Err(_) => return Err(Refused::NotHttp),
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Refused::Method),
    };
    let target = request.path.unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    Ok(Some(Asked { path, head_only }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str, head_only: bool) -> Result<Option<Asked>, Refused> {
        Ok(Some(Asked { path: path.into(), head_only }))
    }

    #[test]
    fn the_path_is_found_whatever_else_the_head_says() {
        assert_eq!(read(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), asked("/metrics", false));
        assert_eq!(read(b"HEAD /healthz?a=b HTTP/1.0\n\n"), asked("/healthz", true));
        assert_eq!(read(b"GET foo:80 HTTP/1.1\r\n\r\n"), asked("foo:80", false));
    }

    #[test]
    fn a_head_that_comes_byte_by_byte_is_read_when_it_is_whole() {
        let head = b"GET /metrics HTTP/1.1\r\nUser-Agent: Prometheus\r\n\r\n";
        for end in 0..head.len() {
            assert_eq!(read(&head[..end]), Ok(None), "{end}");
        }
        assert_eq!(read(head), asked("/metrics", false));
    }

    #[test]
    fn nonsense_is_told_from_what_is_too_long_and_from_other_methods() {
        for nonsense in ["GET /\r\n", "\x16\x03\x01\x02", "GET / HTTP/2.0\r\n\r\n", "\0"] {
            assert_eq!(read(nonsense.as_bytes()), Err(Refused::NotHttp), "{nonsense:?}");
        }
        assert_eq!(read(b"POST /metrics HTTP/1.1\r\n\r\n"), Err(Refused::Method));
        assert_eq!(read(b"CONNECT a:1 HTTP/1.1\r\n\r\n"), Err(Refused::Method));
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(LONGEST));
        assert_eq!(read(&long.as_bytes()[..LONGEST]), Err(Refused::TooLong));
        assert_eq!(read(&long.as_bytes()[..LONGEST - 1]), Ok(None));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS + 1));
        assert_eq!(read(many.as_bytes()), Err(Refused::TooLong));
    }
}
