//! The few of etcd's messages that are spoken here, with the numbers of `api/etcdserverpb/rpc.proto`, `api/mvccpb/kv.proto`
//! (etcd 3.4 and later). What etcd has as a `oneof` are optional fields here, which is the same on the wire.
use mote_grpc::Method;

pub const RANGE: Method = Method { doing: "Range", path: "/etcdserverpb.KV/Range" };
pub const TXN: Method = Method { doing: "Txn", path: "/etcdserverpb.KV/Txn" };
pub const COMPACT: Method = Method { doing: "Compact", path: "/etcdserverpb.KV/Compact" };
pub const WATCH: Method = Method { doing: "Watch", path: "/etcdserverpb.Watch/Watch" };
pub const AUTHENTICATE: Method = Method { doing: "Authenticate", path: "/etcdserverpb.Auth/Authenticate" };
pub const LEASE_GRANT: Method = Method { doing: "LeaseGrant", path: "/etcdserverpb.Lease/LeaseGrant" };

/// A row: field number, name, type, and how prost writes it.
macro_rules! messages {
    ($($message:ident { $($number:tt $field:ident: $type:ty [$($shape:tt)*],)* })*) => {
        $(
            #[derive(Clone, PartialEq, prost::Message)]
            pub struct $message {
                $(#[prost($($shape)*, tag = $number)] pub $field: $type,)*
            }
        )*
    };
}

messages! {
    Header {
        "3" revision: i64 [int64],
    }
    KeyValue {
        "1" key: Vec<u8> [bytes = "vec"],
        "2" create_revision: i64 [int64],
        "3" mod_revision: i64 [int64],
        "4" version: i64 [int64],
        "5" value: Vec<u8> [bytes = "vec"],
    }
    RangeRequest {
        "1" key: Vec<u8> [bytes = "vec"],
        "2" range_end: Vec<u8> [bytes = "vec"],
        "3" limit: i64 [int64],
        "4" revision: i64 [int64],
        "9" count_only: bool [bool],
    }
    RangeResponse {
        "1" header: Option<Header> [message],
        "2" kvs: Vec<KeyValue> [message, repeated],
        "3" more: bool [bool],
    }
    PutRequest {
        "1" key: Vec<u8> [bytes = "vec"],
        "2" value: Vec<u8> [bytes = "vec"],
        "3" lease: i64 [int64],
    }
    DeleteRequest {
        "1" key: Vec<u8> [bytes = "vec"],
    }
    Operation {
        "1" range: Option<RangeRequest> [message, optional],
        "2" put: Option<PutRequest> [message, optional],
        "3" delete: Option<DeleteRequest> [message, optional],
    }
    Outcome {
        "1" range: Option<RangeResponse> [message, optional],
    }
    Compare {
        "1" result: i32 [int32],
        "2" target: i32 [int32],
        "3" key: Vec<u8> [bytes = "vec"],
        "4" version: Option<i64> [int64, optional],
        "5" create_revision: Option<i64> [int64, optional],
        "6" mod_revision: Option<i64> [int64, optional],
    }
    TxnRequest {
        "1" compare: Vec<Compare> [message, repeated],
        "2" success: Vec<Operation> [message, repeated],
        "3" failure: Vec<Operation> [message, repeated],
    }
    TxnResponse {
        "1" header: Option<Header> [message],
        "2" succeeded: bool [bool],
        "3" outcomes: Vec<Outcome> [message, repeated],
    }
    CompactionRequest {
        "1" revision: i64 [int64],
    }
    CompactionResponse {
        "1" header: Option<Header> [message],
    }
    WatchCreate {
        "1" key: Vec<u8> [bytes = "vec"],
        "2" range_end: Vec<u8> [bytes = "vec"],
        "3" start_revision: i64 [int64],
        "8" fragment: bool [bool],
    }
    WatchRequest {
        "1" create: Option<WatchCreate> [message, optional],
    }
    Event {
        "1" kind: i32 [int32],
        "2" kv: Option<KeyValue> [message],
    }
    WatchResponse {
        "1" header: Option<Header> [message],
        "3" created: bool [bool],
        "4" canceled: bool [bool],
        "5" compact_revision: i64 [int64],
        "6" cancel_reason: String [string],
        "7" fragment: bool [bool],
        "11" events: Vec<Event> [message, repeated],
    }
    AuthenticateRequest {
        "1" name: String [string],
        "2" password: String [string],
    }
    AuthenticateResponse {
        "2" token: String [string],
    }
    LeaseGrantRequest {
        "1" ttl: i64 [int64],
    }
    LeaseGrantResponse {
        "2" id: i64 [int64],
        "4" error: String [string],
    }
}

/// Values of `Compare::result`.
pub const EQUAL: i32 = 0;
pub const GREATER: i32 = 1;
/// Values of `Compare::target`.
pub const VERSION: i32 = 0;
pub const CREATE: i32 = 1;
pub const MOD: i32 = 2;
/// The value of `Event::kind` that is not a put.
pub const DELETE: i32 = 1;

/// In place of a key, and of a range's end: all keys.
pub const ALL: &[u8] = b"\0";

pub fn revision(header: &Option<Header>) -> u64 {
    header.as_ref().map_or(0, |header| header.revision.max(0) as u64)
}
