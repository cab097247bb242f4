//! Types that stand for a kind of the API server and are only a part of it.
//!
//! Code that parses all of a Pod or a Node is half a megabyte, most of which a process has in memory once it has parsed one.

/// Makes a type with a field `metadata` be asked for and followed as the kind it is a part of.
macro_rules! part_of {
    ($part:ty, $whole:ty) => {
        impl kube::Resource for $part {
            type DynamicType = <$whole as kube::Resource>::DynamicType;
            type Scope = <$whole as kube::Resource>::Scope;

            fn kind(dynamic: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                <$whole>::kind(dynamic)
            }

            fn group(dynamic: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                <$whole>::group(dynamic)
            }

            fn version(dynamic: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                <$whole>::version(dynamic)
            }

            fn plural(dynamic: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                <$whole>::plural(dynamic)
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

pub(crate) use part_of;
