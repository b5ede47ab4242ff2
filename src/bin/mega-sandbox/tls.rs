//! The certificates of `--tls`, made at start, and how a client that speaks TLS is met: properly, or
//! in one of the ways in which TLS goes wrong (faults.rs). No sockets: wire.rs carries it out.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivatePkcs8KeyDer;

use crate::faults::TlsFault;

type Authority = CertifiedIssuer<'static, KeyPair>;

pub struct Tls {
    proper: Arc<ServerConfig>,
    wrong_name: Arc<ServerConfig>,
    expired: Arc<ServerConfig>,
    /// PEM of the certificate that a client has to trust.
    pub authority: String,
}

/// What a client that begins to speak TLS meets.
pub enum Welcome {
    Session(Arc<ServerConfig>),
    /// A fatal alert instead of an answer.
    Refuse,
    /// The end of the connection in the middle of the handshake.
    Close,
    /// No answer at all.
    Hang,
}

impl Tls {
    /// Valid for localhost, loopback's addresses and the one that is listened on.
    pub fn new(listen: IpAddr) -> Result<Tls, String> {
        Tls::make(listen).map_err(|error| format!("cannot make a certificate: {error}"))
    }

    fn make(listen: IpAddr) -> Result<Tls, Box<dyn std::error::Error>> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "mega-sandbox authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = Authority::self_signed(params, KeyPair::generate()?)?;
        let names = ["localhost", "127.0.0.1", "::1", &listen.to_string()].map(String::from);
        let proper = CertificateParams::new(names)?;
        let mut expired = proper.clone();
        expired.not_after = rcgen::date_time_ymd(2000, 1, 1);
        let wrong_name = CertificateParams::new(["another-name.test".to_string()])?;
        Ok(Tls {
            proper: certified(proper, &authority)?,
            wrong_name: certified(wrong_name, &authority)?,
            expired: certified(expired, &authority)?,
            authority: authority.pem(),
        })
    }

    pub fn welcome(&self, fault: Option<TlsFault>) -> Welcome {
        match fault {
            None => Welcome::Session(Arc::clone(&self.proper)),
            Some(TlsFault::WrongName) => Welcome::Session(Arc::clone(&self.wrong_name)),
            Some(TlsFault::Expired) => Welcome::Session(Arc::clone(&self.expired)),
            Some(TlsFault::Refuse) => Welcome::Refuse,
            Some(TlsFault::Close) => Welcome::Close,
            Some(TlsFault::Hang) => Welcome::Hang,
        }
    }
}

fn certified(
    mut params: CertificateParams,
    authority: &Authority,
) -> Result<Arc<ServerConfig>, Box<dyn std::error::Error>> {
    params.distinguished_name.push(DnType::CommonName, "mega-sandbox");
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )?;
    Ok(Arc::new(config))
}
