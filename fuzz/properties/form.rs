//! What is read from a form is what the URL standard reads from it; what that reads leniently is refused.

use std::collections::HashSet;

use portcullis::web::form::Form;

pub(crate) fn holds(data: &[u8]) {
    let Ok(form) = Form::parse(data) else { return };
    let mut seen = HashSet::new();
    for (name, value) in url::form_urlencoded::parse(data) {
        assert_eq!(form.value(&name), value, "{name:?}");
        assert!(seen.insert(name.clone()), "{name:?} came twice");
    }
    assert_eq!(form.value("no such field"), "");
}
