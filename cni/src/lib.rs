//! The CNI plugin: a pod's link, address, routes and host ports; and the netlink codec that it and the service
//! proxy speak to the kernel with. Knows nothing of Kubernetes objects, and never runs another program.

/// Address ranges.
pub mod cidr;
/// The plugin's input.
pub mod config;
/// What went wrong, with the specification's codes.
pub mod error;
/// The gateway of the node's pods, and kernel settings.
pub mod gateway;
/// Plugin and configuration for the container runtime.
pub mod install;
/// Addresses of pods.
mod ipam;
/// The plugin containerd asks for besides.
mod loopback;
/// Links, addresses, routes, packet rules, connection tracking.
pub mod netlink;
/// Work inside another network namespace.
pub mod netns;
/// The commands.
mod plugin;
/// Masquerading and host ports.
pub mod ports;

pub use cidr::Cidr;
pub use error::{Error, Result};
pub use gateway::Network;
pub use install::{install, is_plugin, uninstall};
pub use plugin::{host_link_name, plugin_main};
