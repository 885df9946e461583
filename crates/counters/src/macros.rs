//! The macros that make sets of counters.

/// Makes a struct of counters: its documentation and name, then each counter with its help, the name of its field, its
/// [`Unit`](crate::Unit) and, after `as`, its [`Kind`](crate::Kind) where that is not `Count`. A counter that operators
/// know by another name than the code has it after a `=`. With `by Reasons: /// ... field,` at its end the struct has
/// one counter for each reason of a [`drop_reasons!`](crate::drop_reasons), too.
///
/// The fields are public and plain: counting costs an addition. The struct has `entries()`, `Default` and `+=`.
#[macro_export]
macro_rules! counters {
    (@name $name:ident) => { stringify!($name) };
    (@name $name:ident $shown:literal) => { $shown };
    (@kind) => { $crate::Kind::Count };
    (@kind $kind:ident) => { $crate::Kind::$kind };
    (
        $(#[doc = $what:literal])+ $set:ident;
        $($(#[doc = $help:literal])+ $name:ident $(= $shown:literal)?: $unit:ident $(as $kind:ident)?,)*
        $(by $reasons:ty: $(#[doc = $each:literal])+ $field:ident,)?
    ) => {
        $(#[doc = $what])+
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $set {
            $($(#[doc = $help])+ pub $name: u64,)*
            $($(#[doc = $each])+ pub $field: [u64; <$reasons>::ALL.len()],)?
        }

        impl $set {
            const DESCRIPTORS: &'static [$crate::Descriptor] = &[$($crate::Descriptor::new(
                $crate::counters!(@name $name $($shown)?),
                $crate::Unit::$unit,
                $crate::counters!(@kind $($kind)?),
                concat!($($help),+).trim_ascii(),
            ),)*];

            /// Each counter with its value, in the order of their definition.
            pub fn entries(&self) -> impl Iterator<Item = $crate::Entry> + use<> {
                let entry = |(descriptor, value)| $crate::Entry { descriptor, value };
                let entries = Self::DESCRIPTORS.iter().zip([$(self.$name),*]).map(entry);
                $(let entries = entries.chain(<$reasons>::DESCRIPTORS.iter().zip(self.$field).map(entry));)?
                entries
            }
        }

        impl Default for $set {
            fn default() -> Self {
                $set { $($name: 0,)* $($field: [0; <$reasons>::ALL.len()],)? }
            }
        }

        impl core::ops::AddAssign<&$set> for $set {
            fn add_assign(&mut self, other: &$set) {
                $(self.$name += other.$name;)*
                $(self.$field.iter_mut().zip(&other.$field).for_each(|(sum, n)| *sum += n);)?
            }
        }
    };
}

/// Makes an enum of reasons for which frames are dropped: its documentation and name, then each reason with its help
/// and the name of its counter. Its index is its place in a set that counts by it.
#[macro_export]
macro_rules! drop_reasons {
    (
        $(#[doc = $what:literal])+ $set:ident;
        $($(#[doc = $help:literal])+ $name:ident = $shown:literal,)*
    ) => {
        $(#[doc = $what])+
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum $set {
            $($(#[doc = $help])+ $name,)*
        }

        impl $set {
            /// All reasons, in the order of their indices.
            pub const ALL: [$set; [$($shown),*].len()] = [$($set::$name),*];

            /// Their counters, in the same order.
            pub const DESCRIPTORS: &'static [$crate::Descriptor] = &[$($crate::Descriptor::new(
                $shown,
                $crate::Unit::Packets,
                $crate::Kind::Drop,
                concat!($($help),+).trim_ascii(),
            ),)*];

            /// The counter's name.
            pub const fn name(self) -> &'static str {
                Self::DESCRIPTORS[self as usize].name
            }

            /// One line for the operator.
            pub const fn help(self) -> &'static str {
                Self::DESCRIPTORS[self as usize].help
            }
        }
    };
}
