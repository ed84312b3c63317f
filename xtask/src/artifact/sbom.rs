//! The bill of materials: every source with its digest and licence, as CycloneDX 1.6 JSON. It says
//! nothing of the run that made it, so it is the same in every rebuild. In a wheel it stands where
//! PEP 770 has it: `dist-info/sboms/`.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::civil_date;
use crate::recipe::Coordinate;

/// File name inside a wheel's `dist-info/sboms/`.
pub const FILE: &str = "torchmill.cdx.json";

/// One thing that went in.
#[derive(Debug, Clone)]
pub struct Component {
    /// Name of the source, the library or the package.
    pub name: String,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// SPDX licence expression, where it is known.
    pub license: Option<String>,
    /// Where it can be had.
    pub coordinates: Vec<Coordinate>,
    /// Whether code of it is in the artifact; else it was a tool.
    pub linked: bool,
}

/// What a bill is about.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// Name of the package.
    pub name: &'a str,
    /// Its full version.
    pub version: String,
    /// SPDX identifier of its licence.
    pub license: &'a str,
    /// Upstream's commit, where it is known.
    pub commit: Option<&'a str>,
}

/// The bill for `subject`, with the time `epoch`.
pub fn cyclonedx(subject: &Subject<'_>, epoch: i64, components: &[Component]) -> Value {
    let Subject { name, version, license, commit } = subject;
    let mut about = json!({
        "type": "library",
        "bom-ref": name,
        "name": name,
        "version": version,
        "purl": format!("pkg:pypi/{name}@{}", percent(version)),
        "licenses": [{ "license": { "id": license } }],
    });
    if let Some(commit) = commit {
        about["pedigree"] = json!({ "commits": [{ "uid": commit }] });
    }
    let parts: Vec<Value> = components.iter().map(component).collect();
    let mut bom = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": timestamp(epoch),
            "tools": { "components": [{ "type": "application", "name": "torchmill", "version": env!("CARGO_PKG_VERSION") }] },
            "component": about,
        },
        "components": parts,
        "dependencies": [{
            "ref": name,
            "dependsOn": components.iter().filter(|c| c.linked).map(|c| c.name.clone()).collect::<Vec<_>>(),
        }],
    });
    // A serial number must be unique to the bill: it is made of the bill (RFC 9562, version 8).
    let digest = Sha256::digest(bom.to_string());
    bom["serialNumber"] = format!("urn:uuid:{}", uuid(&digest)).into();
    bom
}

fn component(c: &Component) -> Value {
    let mut out = json!({
        "type": if c.linked { "library" } else { "application" },
        "bom-ref": c.name,
        "name": c.name,
        "scope": if c.linked { "required" } else { "excluded" },
        "hashes": [{ "alg": "SHA-256", "content": c.sha256 }],
    });
    if let Some(license) = &c.license {
        out["licenses"] = json!([{ "expression": license }]);
    }
    if let Some((version, purl)) = c.coordinates.iter().find_map(identify) {
        out["version"] = version.into();
        out["purl"] = purl.into();
    }
    let sources: Vec<Value> =
        c.coordinates.iter().map(|c| json!({ "type": "source-distribution", "url": c.to_string() })).collect();
    if !sources.is_empty() {
        out["externalReferences"] = sources.into();
    }
    out
}

/// Version and package URL (purl-spec) of a coordinate.
fn identify(coordinate: &Coordinate) -> Option<(String, String)> {
    match coordinate {
        Coordinate::Pypi { name, version, .. } => {
            Some((version.clone(), format!("pkg:pypi/{}@{}", name.to_lowercase().replace('_', "-"), percent(version))))
        }
        Coordinate::Crate { name, version } => {
            Some((version.clone(), format!("pkg:cargo/{name}@{}", percent(version))))
        }
        Coordinate::Debian(pool) => {
            let file = pool.rsplit('/').next()?;
            let (name, rest) = file.split_once('_')?;
            let binary = rest.strip_suffix(".deb");
            let version = match binary {
                Some(b) => b.rsplit_once('_')?.0,
                None => rest.split(".orig").next()?.trim_end_matches(".tar.xz").trim_end_matches(".tar.gz"),
            };
            let arch = binary.and_then(|b| b.rsplit_once('_')).map_or("source", |(_, arch)| arch);
            Some((version.to_owned(), format!("pkg:deb/debian/{name}@{}?arch={arch}", percent(version))))
        }
        Coordinate::Git { commit, url } => {
            let name = url.trim_end_matches(".git").rsplit('/').next()?;
            Some((commit.clone(), format!("pkg:generic/{}@{commit}", percent(name))))
        }
        Coordinate::Http(_) | Coordinate::File(_) => None,
    }
}

/// Percent-encoding of a purl's version.
fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

/// RFC 3339, UTC.
fn timestamp(epoch: i64) -> String {
    let (year, month, day) = civil_date(epoch.div_euclid(86_400));
    let s = epoch.rem_euclid(86_400);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", s / 3600, s / 60 % 60, s % 60)
}

fn uuid(digest: &[u8]) -> String {
    let mut b = [0u8; 16];
    b.copy_from_slice(&digest[..16]);
    b[6] = b[6] & 0x0f | 0x80;
    b[8] = b[8] & 0x3f | 0x80;
    let h = hex::encode(b);
    format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    #[test]
    fn a_package_url_names_version_and_kind() {
        for (coordinate, purl) in [
            (
                "pypi:mkl-static/2024.2.2/mkl_static-2024.2.2-py2.py3-none-manylinux1_x86_64.whl",
                "pkg:pypi/mkl-static@2024.2.2",
            ),
            ("crate:cxx/1.0.3", "pkg:cargo/cxx@1.0.3"),
            ("debian:main/libu/libuv1/libuv1_1.50.0.orig.tar.gz", "pkg:deb/debian/libuv1@1.50.0?arch=source"),
            (
                "debian:main/c/ccache/ccache_4.8+really4.7.5-1_amd64.deb",
                "pkg:deb/debian/ccache@4.8%2Breally4.7.5-1?arch=amd64",
            ),
        ] {
            let found = identify(&Coordinate::from_str(coordinate).unwrap());
            assert_eq!(found.map(|f| f.1).as_deref(), Some(purl));
        }
    }

    #[test]
    fn the_time_is_the_recipes() {
        assert_eq!(timestamp(1_738_108_800), "2025-01-29T00:00:00Z");
    }
}
