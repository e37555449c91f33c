//! Putting the plugin and its configuration where the container runtime looks for them.
//!
//! Files appear whole and only when they differ from what is there: a restart writes nothing to flash.
use crate::error::{Error, Result};
use crate::gateway::Network;
use crate::loopback;
use serde_json::json;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The name under which the `mote` binary is the plugin.
pub const PLUGIN: &str = "mote-cni";
pub const CONFIG_FILE: &str = "10-mote.conflist";
/// What containerd 1.6 (Debian 12) speaks; later runtimes take it too.
const CONFIG_VERSION: &str = "1.0.0";

/// Whether a program started under this name is to be the plugin.
pub fn is_plugin(argv0: &std::ffi::OsStr) -> bool {
    let name = Path::new(argv0).file_name();
    [PLUGIN, loopback::PLUGIN].iter().any(|plugin| name == Some(plugin.as_ref()))
}

fn conflist(network: &Network, data_dir: &Path) -> Vec<u8> {
    let list = json!({
        "cniVersion": CONFIG_VERSION,
        "name": "mote",
        "plugins": [{
            "type": PLUGIN,
            "link": network.link,
            "podCIDR": network.pod_cidr,
            "clusterCIDR": network.cluster_cidr,
            "mtu": network.mtu,
            "dataDir": data_dir,
            "capabilities": {"portMappings": true},
        }],
    });
    let mut bytes = format!("{list:#}").into_bytes();
    bytes.push(b'\n');
    bytes
}

/// Installs plugin (a link to `binary`) and configuration; whether anything had to be written.
pub fn install(
    plugin_dir: &Path,
    config_dir: &Path,
    binary: &Path,
    network: &Network,
    data_dir: &Path,
) -> Result<bool> {
    let mut changed = false;
    for name in [PLUGIN, loopback::PLUGIN] {
        let plugin = plugin_dir.join(name);
        let target = fs::read_link(&plugin).ok();
        // The distribution's own loopback plugin is as good as ours.
        let is_mote = target.as_ref().is_some_and(|target| target.file_name() == binary.file_name());
        let others = name == loopback::PLUGIN && plugin.is_file() && !is_mote;
        if others || target.as_deref() == Some(binary) {
            continue;
        }
        let new = new_name(&plugin);
        fs::create_dir_all(plugin_dir)
            .and_then(|()| remove(&new))
            .and_then(|()| symlink(binary, &new))
            .and_then(|()| fs::rename(&new, &plugin))
            .map_err(|e| Error::io(plugin.display(), e))?;
        changed = true;
    }
    let (config, bytes) = (config_dir.join(CONFIG_FILE), conflist(network, data_dir));
    if fs::read(&config).ok().as_deref() != Some(&bytes) {
        let new = new_name(&config);
        fs::create_dir_all(config_dir)
            .and_then(|()| fs::write(&new, &bytes))
            .and_then(|()| fs::File::open(&new)?.sync_all())
            .and_then(|()| fs::rename(&new, &config))
            .map_err(|e| Error::io(config.display(), e))?;
        changed = true;
    }
    Ok(changed)
}

/// Takes both away again. All steps are done; all errors are told.
pub fn uninstall(plugin_dir: &Path, config_dir: &Path) -> Result<()> {
    let mut errors = Vec::new();
    let (plugin, loopback) = (plugin_dir.join(PLUGIN), plugin_dir.join(loopback::PLUGIN));
    let ours = fs::read_link(&loopback).is_ok_and(|target| fs::read_link(&plugin).is_ok_and(|own| own == target));
    let loopback = ours.then_some(loopback);
    for path in [Some(config_dir.join(CONFIG_FILE)), loopback, Some(plugin)].into_iter().flatten() {
        errors.extend(remove(&path).err().map(|e| Error::io(path.display(), e)));
    }
    Error::all(errors).map_or(Ok(()), Err)
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Hidden, so that a runtime that watches the folder does not read it half written.
fn new_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installing_twice_writes_once() {
        let dir = std::env::temp_dir().join(format!("mote-install-{}", std::process::id()));
        let (plugins, configs) = (dir.join("bin"), dir.join("net.d"));
        let network = Network {
            link: "mote0".to_owned(),
            pod_cidr: "10.42.0.0/24".parse().unwrap(),
            cluster_cidr: "10.42.0.0/16".parse().unwrap(),
            mtu: 0,
        };
        let run = |binary: &str| {
            install(&plugins, &configs, Path::new(binary), &network, Path::new("/run/mote/cni")).unwrap()
        };
        assert!(run("/usr/bin/mote"));
        assert!(!run("/usr/bin/mote"));
        assert!(run("/usr/local/bin/mote"));
        let list: serde_json::Value = serde_json::from_slice(&fs::read(configs.join(CONFIG_FILE)).unwrap()).unwrap();
        assert_eq!(list["plugins"][0]["podCIDR"], "10.42.0.0/24");
        assert_eq!(fs::read_link(plugins.join(PLUGIN)).unwrap(), Path::new("/usr/local/bin/mote"));
        // What the runtime hands back to the plugin, its name and version added, is a configuration.
        let mut plugin = list["plugins"][0].clone();
        plugin["name"] = list["name"].clone();
        plugin["cniVersion"] = list["cniVersion"].clone();
        crate::config::Config::parse(plugin.to_string().as_bytes()).unwrap();
        assert_eq!(fs::read_link(plugins.join("loopback")).unwrap(), Path::new("/usr/local/bin/mote"));
        uninstall(&plugins, &configs).unwrap();
        uninstall(&plugins, &configs).unwrap();
        assert_eq!(fs::read_dir(&configs).unwrap().count() + fs::read_dir(&plugins).unwrap().count(), 0);
        fs::write(plugins.join("loopback"), "the distribution's").unwrap();
        assert!(run("/usr/bin/mote") && !run("/usr/bin/mote"));
        uninstall(&plugins, &configs).unwrap();
        assert_eq!(fs::read(plugins.join("loopback")).unwrap(), b"the distribution's");
        fs::remove_dir_all(&dir).unwrap();
    }
}
