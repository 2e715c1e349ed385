//! Paths of keys, and look-ups by them.

use figment::value::{Empty, Value};

/// The steps of a key: `server.listen.1`.
pub(super) fn steps(key: &str) -> Vec<String> {
    key.split('.').map(str::to_owned).collect()
}

/// A path as people write it: `server.listen.1` becomes `server.listen[1]`.
pub(super) fn shown(path: &[String]) -> String {
    let is_index = |step: &String| step.bytes().all(|byte| byte.is_ascii_digit());
    let mut shown = String::new();
    for step in path {
        match step {
            index if is_index(index) => shown.extend(["[", index, "]"]),
            first if shown.is_empty() => shown.push_str(first),
            next => shown.extend([".", next]),
        }
    }
    shown
}

/// Follows a path as far as possible: the value reached, and how many steps were taken.
pub(super) fn find<'v>(values: &'v Value, path: &[String]) -> (&'v Value, usize) {
    let mut value = values;
    for (depth, step) in path.iter().enumerate() {
        let next = match value {
            Value::Dict(_, dict) => dict.get(step),
            Value::Array(_, elements) => step.parse::<usize>().ok().and_then(|index| elements.get(index)),
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => return (value, depth),
        }
    }
    (value, path.len())
}

pub(super) fn find_mut<'v>(values: &'v mut Value, path: &[String]) -> Option<&'v mut Value> {
    path.iter().try_fold(values, |value, step| match value {
        Value::Dict(_, dict) => dict.get_mut(step),
        Value::Array(_, elements) => step.parse::<usize>().ok().and_then(|index| elements.get_mut(index)),
        _ => None,
    })
}

/// Removes a value. A list element leaves a gap, so that the others keep their index.
pub(super) fn take_out(values: &mut Value, path: &[String]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    match find_mut(values, parents) {
        Some(Value::Dict(_, dict)) => dict.remove(last).is_some(),
        Some(Value::Array(tag, elements)) => {
            match last.parse::<usize>().ok().and_then(|index| elements.get_mut(index)) {
                Some(element) if !matches!(element, Value::Empty(..)) => {
                    *element = Value::Empty(*tag, Empty::None);
                    true
                }
                _ => false,
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_as_people_write_it() {
        assert_eq!(shown(&steps("server.listen.1")), "server.listen[1]");
    }
}
