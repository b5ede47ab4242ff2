//! A first meeting with one of WeChat's hosts, for whoever wants to know how it is: TLS as the workers have
//! it, one GET of `/`, and what the answer and the certificate say. Asks for no token, and counts for nothing.

use super::client::{Client, Network};
use super::tls;
use crate::config::Config;
use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub struct Met {
    /// That it answered at all, whatever the status; or why not.
    pub answered: Result<(), String>,
    /// How far its clock is ahead of this machine's, in seconds, where it tells the time.
    pub ahead: Option<i64>,
    /// When its certificate ends, in seconds since 1970, if it showed one.
    pub certified_until: Option<i64>,
}

/// Ends within the configuration's timeouts.
pub fn meet(config: &Config, host: &str) -> Result<Met, String> {
    let seen = Arc::new(Mutex::new(None));
    let network = Network::with(config, watched(config, Arc::clone(&seen))?)?;
    let asked = now();
    let response = Client::new(network).raw(host);
    let middle = asked + (now().saturating_sub(asked)) / 2;
    let (answered, ahead) = match response {
        Ok(response) => {
            let date = response.headers().get("date").and_then(|date| date.to_str().ok());
            (Ok(()), date.and_then(|date| ahead(date, middle)))
        }
        Err(trouble) => (Err(trouble.text), None),
    };
    let certificate = seen.lock().take();
    Ok(Met { answered, ahead, certified_until: certificate.and_then(|der| ends(&der)) })
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The header cuts the fraction of its second off.
fn ahead(date: &str, middle: Duration) -> Option<i64> {
    let date = chrono::DateTime::parse_from_rfc2822(date).ok()?;
    let difference = date.timestamp_millis() + 500 - i64::try_from(middle.as_millis()).ok()?;
    Some(difference / 1000)
}

fn ends(certificate: &[u8]) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

type Seen = Arc<Mutex<Option<Vec<u8>>>>;

/// Trusts whom the workers trust, and keeps the certificate that was shown.
fn watched(config: &Config, seen: Seen) -> Result<Arc<ClientConfig>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("TLS cannot be set up: {error}");
    let roots = Arc::new(tls::authorities(config.wechat.ca_file.as_deref())?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let usual = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
    let usual = usual.map_err(|error| failed(&error))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Watch { usual, seen }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Watch {
    usual: Arc<WebPkiServerVerifier>,
    seen: Seen,
}

impl ServerCertVerifier for Watch {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.seen.lock() = Some(end_entity.to_vec());
        self.usual.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_compared_with_the_middle_of_its_second() {
        let date = "Tue, 15 Nov 1994 08:12:31 GMT";
        let at = |ms: u64| Duration::from_millis(784_887_151_000 + ms);
        assert_eq!(ahead(date, at(500)), Some(0));
        assert_eq!(ahead(date, at(0)), Some(0));
        assert_eq!(ahead(date, at(61_500)), Some(-61));
        assert_eq!(ahead("yesterday", at(0)), None);
    }

    #[test]
    fn the_end_of_a_certificate_is_read() {
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2000, 1, 2);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        assert_eq!(ends(certificate.der()), Some(946_771_200));
        assert_eq!(ends(b"no certificate"), None);
    }
}
