//! The cluster's certificates and the configurations that use them.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::error::Result;
use crate::network::addresses::{API_NAME, API_SERVER, API_SERVICE, NODES};
use crate::state::{Lab, create_private_dir, write_file};

/// Who proves itself to the API server by certificate: file name, user, group.
const CLIENTS: [(&str, &str, Option<&str>); 5] = [
    ("admin", "egress-lab-admin", Some("system:masters")),
    ("controller-manager", "system:kube-controller-manager", None),
    ("scheduler", "system:kube-scheduler", None),
    ("kube-proxy", "system:kube-proxy", None),
    ("kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters")),
];

/// Makes the authority, the API server's certificate, a client certificate for every component, and the key of
/// ServiceAccounts. A tenth of a second.
pub fn issue(lab: &Lab) -> Result<()> {
    let folder = lab.dir.pki();
    create_private_dir(&folder)?;
    let key = KeyPair::generate()?;
    let mut params = named("egress-lab", None)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    write_file(&folder.join("ca.pem"), params.self_signed(&key)?.pem().as_bytes())?;
    let authority = Issuer::new(params, key);

    let names: Vec<String> = [
        "localhost",
        "127.0.0.1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        API_NAME,
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([API_SERVER.to_string(), API_SERVICE.to_string()])
    .collect();
    let mut server = CertificateParams::new(names)?;
    server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    sign(&folder, "apiserver", &server, &authority)?;

    for (file, user, group) in CLIENTS {
        sign(&folder, file, &client(user, group)?, &authority)?;
    }
    for node in &NODES {
        let user = format!("system:node:{}", node.name);
        sign(&folder, node.name, &client(&user, Some("system:nodes"))?, &authority)?;
    }
    let accounts = KeyPair::generate()?;
    write_file(&folder.join("service-accounts.key"), accounts.serialize_pem().as_bytes())?;
    write_file(&folder.join("service-accounts.pub"), accounts.public_key_pem().as_bytes())
}

fn named(user: &str, group: Option<&str>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    Ok(params)
}

fn client(user: &str, group: Option<&str>) -> Result<CertificateParams> {
    let mut params = named(user, group)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn sign(
    folder: &Path,
    file: &str,
    params: &CertificateParams,
    authority: &Issuer<'_, KeyPair>,
) -> Result<()> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    write_file(&folder.join(format!("{file}.pem")), certificate.pem().as_bytes())?;
    write_file(&folder.join(format!("{file}.key")), key.serialize_pem().as_bytes())
}

/// Writes a configuration with which `user` (a file name of the certificates) reaches the API server at `server`.
pub fn kubeconfig(lab: &Lab, path: &Path, user: &str, server: &str) -> Result<()> {
    let pki = lab.dir.pki();
    let file = |name: &str| pki.join(name).display().to_string();
    let context = format!("egress-lab-{}", lab.name());
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": {"server": server, "certificate-authority": file("ca.pem")}}],
        "users": [{"name": user, "user": {
            "client-certificate": file(&format!("{user}.pem")),
            "client-key": file(&format!("{user}.key")),
        }}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
        "current-context": context,
    });
    crate::state::write_json(path, &config)
}
