//! Types of Kubernetes inside ours.

use schemars::Schema;
use serde_json::Value;

/// Takes the descriptions out of everything below `schema`: they are Kubernetes' own, fill two thirds of the definitions,
/// and `kubectl explain pod` shows them too.
pub(super) fn without_descriptions(schema: &mut Schema) {
    if let Some(object) = schema.as_object_mut() {
        object.values_mut().for_each(strip);
    }
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(object) => {
            // A property that is called so is an object.
            if object.get("description").is_some_and(Value::is_string) {
                object.remove("description");
            }
            object.values_mut().for_each(strip);
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
