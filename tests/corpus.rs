//! What fuzzing has found worth keeping, tried again with every change: `fuzz/run` searches on from there.

use std::{fs, path::Path};

/// The properties, by the folder of the corpus that each has to hold for.
const PROPERTIES: [(&str, fn(&[u8])); 16] = [
    ("answer", answer::holds),
    ("client", client::holds),
    ("config", config::holds),
    ("connection", connection::holds),
    ("cookies", cookies::holds),
    ("form", form::holds),
    ("gate", gate::holds),
    ("path", path::holds),
    ("proxy_protocol", proxy_protocol::holds),
    ("raw_frames", raw_frames::holds),
    ("request_head", request_head::holds),
    ("return_to", return_to::holds),
    ("rules", rules::holds),
    ("second_reader", second_reader::holds),
    ("session_notice", session_notice::holds),
    ("stored_hash", stored_hash::holds),
];

#[cfg(test)]
#[path = "../fuzz/properties/answer.rs"]
mod answer;
#[cfg(test)]
#[path = "../fuzz/properties/client.rs"]
mod client;
#[cfg(test)]
#[path = "../fuzz/properties/config.rs"]
mod config;
#[cfg(test)]
#[path = "../fuzz/properties/connection.rs"]
mod connection;
#[cfg(test)]
#[path = "../fuzz/properties/cookies.rs"]
mod cookies;
#[cfg(test)]
#[path = "../fuzz/properties/form.rs"]
mod form;
#[cfg(test)]
#[path = "../fuzz/properties/gate.rs"]
mod gate;
#[cfg(test)]
#[path = "../fuzz/properties/path.rs"]
mod path;
#[cfg(test)]
#[path = "../fuzz/properties/proxy_protocol.rs"]
mod proxy_protocol;
#[cfg(test)]
#[path = "../fuzz/properties/raw_frames.rs"]
mod raw_frames;
#[cfg(test)]
#[path = "../fuzz/properties/request_head.rs"]
mod request_head;
#[cfg(test)]
#[path = "../fuzz/properties/return_to.rs"]
mod return_to;
#[cfg(test)]
#[path = "../fuzz/properties/rules.rs"]
mod rules;
#[cfg(test)]
#[path = "../fuzz/properties/second_reader.rs"]
mod second_reader;
#[cfg(test)]
#[path = "../fuzz/properties/session_notice.rs"]
mod session_notice;
#[cfg(test)]
#[path = "../fuzz/properties/stored_hash.rs"]
mod stored_hash;

/// The files of one corpus.
fn inputs(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let files = fs::read_dir(folder).expect("there is a corpus").flatten();
    files.map(|file| fs::read(file.path()).expect("a file of the corpus can be read")).collect()
}

#[test]
fn every_property_holds_for_the_whole_corpus() {
    for (name, holds) in PROPERTIES {
        let inputs = inputs(name);
        assert!(inputs.len() > 5, "the corpus of {name} has {} files", inputs.len());
        for input in inputs {
            let shown = format!("{name}: {:?}", String::from_utf8_lossy(&input));
            std::panic::catch_unwind(|| holds(&input)).unwrap_or_else(|_| panic!("{shown}"));
        }
    }
}

#[test]
fn every_target_is_tried_again() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut targets: Vec<String> = fs::read_dir(targets)
        .expect("there are targets")
        .flatten()
        .map(|file| file.path().file_stem().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    targets.sort();
    assert_eq!(targets, PROPERTIES.map(|(name, _)| name));
}
