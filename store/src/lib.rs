//! A revisioned key-value store: an immutable ordered map in memory, a journal and redb behind it.
//!
//! It knows nothing of what it stores. Reads never touch the disk and never wait; the disk is read whole when the
//! store is opened and only written after that. `FORMAT.md` describes the bytes on disk.
//!
//! Two invariants carry everything else:
//! - **Order.** Revisions become visible one after the other, and none before every durable commit at or before it
//!   is flushed.
//! - **Prefix.** What survives a power cut is the outcome of all transactions up to some revision, volatile ones left
//!   out, and that revision is at or above every acknowledged durable commit.

mod backup;
mod change;
mod cipher;
mod crc;
mod database;
mod disk;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
mod frame;
mod guard;
mod journal;
mod latency;
mod meter;
mod pace;
mod page;
mod record;
mod recover;
mod ring;
mod root;
mod state;
mod storage;
mod store;
mod transaction;
mod watch;
mod writer;

pub use backup::{Backup, create, create_in, entries};
pub use cipher::{Cipher, Opened, Unreadable};
pub use disk::Sizes;
pub use error::Error;
#[cfg(feature = "etcd")]
pub use etcd::{Etcd, Layout, Login, Password};
pub use latency::Latency;
pub use root::Snapshot;
pub use state::Stats;
pub use storage::{Blocks, Directory, Part, Storage};
pub use store::{Options, Store};
pub use transaction::{Class, Entry, Event, Key, Precondition, Revision, Transaction, Value, Write};
pub use watch::Watcher;
pub use writer::{Apart, Writer};
