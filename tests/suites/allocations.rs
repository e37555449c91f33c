//! How often a request asks for memory, held: counted from outside, in the binary that ships, on one open connection.
//! Counts, so they do not depend on how busy the machine is.
use mote_size_report::budget::Specification;
use mote_tests::{Server, cost, trace};

/// Breakpoints of one byte are x86_64's.
#[cfg(target_arch = "x86_64")]
#[test]
fn requests_keep_to_their_allocations() {
    let specification = Specification::embedded();
    let mut over = Vec::new();
    for (what, measure) in cost::ALLOCATIONS {
        let (measured, at_most) = (measure(), specification.cost(what));
        println!("{what}: {measured}, at most {at_most}");
        if measured > at_most {
            over.push(format!("{what}: {measured}, over {at_most}"));
        }
    }
    assert!(over.is_empty(), "{}", over.join("\n"));
}

/// What is traced goes on as it did.
#[test]
fn a_traced_server_is_unharmed() {
    let server: Server = cost::server();
    let client = server.client();
    let (calls, ()) = trace::calls(server.pid(), &trace::allocators(), || {
        for _ in 0..5 {
            assert_eq!(client.get("/version").code, 200);
        }
    });
    println!("{calls} allocations of five connections");
    assert!(trace::system_calls(server.pid(), 1) < 1_000);
    assert_eq!(client.get("/readyz").code, 200);
}
