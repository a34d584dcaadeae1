//! The field `tls` of a proxy that is to be created. Files are read here, and go over as what is in them.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::cli::proxy::TlsArgs;
use crate::exit::Error;

/// As the API takes it; `None` where TLS is to pass through.
pub(super) fn field(args: TlsArgs) -> Result<Option<Value>, Error> {
    let mut tls = Map::new();
    if args.self_issued {
        tls.insert("self_issued".to_owned(), true.into());
    }
    for (name, flag, file) in [
        ("certificate", "--tls-cert", args.cert),
        ("key", "--tls-key", args.key),
    ] {
        if let Some(file) = file {
            tls.insert(name.to_owned(), read(flag, &file)?.into());
        }
    }
    let ends = !tls.is_empty();
    if args.to_upstream {
        tls.insert("upstream".to_owned(), "tls".into());
    }
    if let Some(file) = args.upstream_ca {
        let text = read("--tls-upstream-ca", &file)?;
        tls.insert("upstream_ca".to_owned(), text.into());
    }
    if let Some(name) = args.server_name {
        tls.insert("server_name".to_owned(), name.into());
    }
    if !ends && !tls.is_empty() {
        return Err(Error::usage(
            "--tls-upstream and its like are for a proxy that ends TLS; add --tls-self-issued, or --tls-cert and --tls-key",
        ));
    }
    Ok((!tls.is_empty()).then(|| tls.into()))
}

/// A PEM text; what is none shall not be taken for the name of a file there.
fn read(flag: &str, file: &Path) -> Result<String, Error> {
    let wrong = |reason: &str| Error::usage(format!("{flag} {}: {reason}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| wrong(&error.to_string()))?;
    if text.contains("-----BEGIN") {
        Ok(text)
    } else {
        Err(wrong("not PEM, as in -----BEGIN CERTIFICATE-----"))
    }
}
