//! Lists in pages, held against a model: whatever is written between them, the pages of one list together are what was there when
//! the first was asked for, each once and in order. Seeds are fixed, and printed on failure.
use mote_tests::{Server, http::Connection};
use serde_json::{Value, json};
use std::collections::BTreeMap;

struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % below.max(1)
    }
}

const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// The real list and what it should be: names and their label.
struct World {
    connection: Connection,
    model: BTreeMap<String, usize>,
}

impl World {
    fn send(&mut self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (code, body) = self.connection.request(method, path, body).expect("an answer");
        (code, serde_json::from_slice(&body).expect("JSON"))
    }

    fn write(&mut self, random: &mut Random) {
        let name = format!("p{:02}", random.next(40));
        let label = random.next(3);
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"n": label.to_string()}}});
        let path = format!("{PATH}/{name}");
        let code = match (self.model.contains_key(&name), random.next(2)) {
            (false, _) => self.send("POST", PATH, &object.to_string()).0,
            (true, 0) => self.send("PUT", &path, &object.to_string()).0,
            (true, _) => {
                self.model.remove(&name);
                assert_eq!(self.send("DELETE", &path, "").0, 200);
                return;
            }
        };
        assert!(code == 200 || code == 201, "{code}");
        self.model.insert(name, label);
    }

    fn list(&mut self, random: &mut Random) {
        let label = random.next(4);
        let selector = if label < 3 { format!("labelSelector=n%3D{label},n&") } else { String::new() };
        let want: Vec<String> =
            self.model.iter().filter(|(_, has)| label == 3 || **has == label).map(|(name, _)| name.clone()).collect();
        let (mut got, mut token, mut revision) = (Vec::new(), String::new(), None);
        loop {
            let limit = 1 + random.next(7);
            let (code, page) = self.send("GET", &format!("{PATH}?{selector}limit={limit}&continue={token}"), "");
            assert_eq!(code, 200, "{page}");
            let items = page["items"].as_array().expect("items");
            assert!(items.len() <= limit);
            let names = items.iter().filter_map(|item| item["metadata"]["name"].as_str());
            got.extend(names.filter(|name| name.starts_with('p')).map(str::to_owned));
            let of_page = page["metadata"]["resourceVersion"].as_str().map(str::to_owned);
            assert_eq!(*revision.get_or_insert(of_page.clone()), of_page, "one list is of one revision");
            // Only where nothing is selected is it known how many are left.
            if let Some(left) = page["metadata"]["remainingItemCount"].as_u64() {
                assert!(selector.is_empty() && left as usize >= want.len() - got.len(), "{left}");
            }
            token = page["metadata"]["continue"].as_str().unwrap_or("").to_owned();
            if token.is_empty() {
                break;
            }
            for _ in 0..random.next(4) {
                self.write(random);
            }
        }
        assert_eq!(got, want, "{selector}");
    }
}

#[test]
fn pages_are_one_list() {
    let server = Server::start_with("components: {disabled: [kubelet, network, scheduler, controllers]}\n");
    let connection = Connection::open(&server.client()).expect("a connection");
    let mut world = World { connection, model: BTreeMap::new() };
    for seed in 1..=60u64 {
        println!("seed {seed}");
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for _ in 0..10 {
            world.write(&mut random);
        }
        world.list(&mut random);
    }
}
