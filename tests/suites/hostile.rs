//! Half a minute among clients that mean harm; `./dev hostile` is an hour of the same.
use mote_tests::hostile;

#[test]
fn honest_clients_are_served_among_hostile_ones_and_nothing_is_left() {
    let mut server = hostile::server();
    hostile::run(&mut server, 25);
}
