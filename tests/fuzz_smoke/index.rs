//! A store's index, which other tools write too: nothing of theirs is lost.

use windlass::model::Reference;
use windlass::store::Index;

pub(crate) fn run(input: &[u8]) {
    let Ok(mut index) = serde_json::from_slice::<Index>(input) else { return };
    let text = serde_json::to_vec(&index).expect("what was read can be written");
    let again: Index = serde_json::from_slice(&text).expect("and read");
    assert_eq!(again, index);
    let bundles: Vec<_> = index.bundles().collect();
    let _ = index.manifests().count();
    for bundle in bundles {
        let reference = Reference::Tagged(bundle.role.clone(), bundle.version.clone());
        assert!(index.find(&reference).is_some());
        let _ = index.near(&reference);
        index.remove(&bundle.role, &bundle.version);
        assert_eq!(index.find(&reference), None);
        index.add(&bundle);
        assert_eq!(index.find(&reference), Some(bundle));
    }
}
