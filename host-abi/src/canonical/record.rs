//! Records and enums of the WIT files as Rust types.

/// Declares a WIT record: its fields in order, at least one, each of a type that crosses the boundary.
macro_rules! wit_record {
    ($(#[$attribute:meta])* pub struct $name:ident { $($(#[$field_attribute:meta])* pub $field:ident: $type:ty,)+ }) => {
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        $(#[$attribute])*
        pub struct $name {
            $($(#[$field_attribute])* pub $field: $type,)*
        }

        impl $crate::canonical::AbiType for $name {
            const SIZE: u32 = {
                let mut end = 0;
                $(end = $crate::canonical::align_to(end, <$type>::ALIGN) + <$type>::SIZE;)*
                $crate::canonical::align_to(end, Self::ALIGN)
            };
            const ALIGN: u32 = {
                let mut align = 1;
                $(if <$type>::ALIGN > align {
                    align = <$type>::ALIGN;
                })*
                align
            };

            fn flatten(flat: &mut Vec<$crate::canonical::CoreType>) {
                $(<$type>::flatten(flat);)*
            }
        }

        impl $crate::canonical::Lift for $name {
            fn lift(
                source: &mut $crate::canonical::Source<'_>,
                flat: &mut $crate::canonical::FlatValues<'_>,
            ) -> Result<Self, $crate::canonical::AbiError> {
                $(let $field = <$type>::lift(source, flat).map_err(|error| error.inside(stringify!($field).replace('_', "-")))?;)*
                Ok(Self { $($field),* })
            }

            fn load(
                source: &mut $crate::canonical::Source<'_>,
                address: $crate::canonical::GuestPtr,
            ) -> Result<Self, $crate::canonical::AbiError> {
                let mut fields = $crate::canonical::Fields::default();
                $(
                    let $field = <$type>::load(source, address.offset(fields.next_field::<$type>()))
                        .map_err(|error| error.inside(stringify!($field).replace('_', "-")))?;
                )*
                Ok(Self { $($field),* })
            }
        }

        impl $crate::canonical::Lower for $name {
            fn lower(self, image: &mut $crate::canonical::Image, flat: &mut Vec<$crate::canonical::Slot>) {
                $(self.$field.lower(image, flat);)*
            }

            fn store(
                self,
                image: &mut $crate::canonical::Image,
                block: $crate::canonical::BlockId,
                offset: u32,
            ) {
                let mut fields = $crate::canonical::Fields::default();
                $(self.$field.store(image, block, offset + fields.next_field::<$type>());)*
            }
        }
    };
}

/// Declares a WIT enum: its cases in order, at most 256, without payload.
macro_rules! wit_enum {
    ($(#[$attribute:meta])* pub enum $name:ident { $($(#[$case_attribute:meta])* $case:ident,)* }) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $(#[$attribute])*
        pub enum $name {
            $($(#[$case_attribute])* $case,)*
        }

        impl $name {
            /// Every case, in the order of the WIT declaration.
            pub const CASES: &[Self] = &[$(Self::$case),*];

            fn from_discriminant(discriminant: u32) -> Result<Self, $crate::canonical::AbiError> {
                Self::CASES.get(discriminant as usize).copied().ok_or_else(|| {
                    let cases = Self::CASES.len() as u32;
                    $crate::canonical::Fault::UnknownDiscriminant { discriminant, cases }.into()
                })
            }
        }

        impl $crate::canonical::AbiType for $name {
            const SIZE: u32 = {
                assert!(Self::CASES.len() <= 256);
                1
            };
            const ALIGN: u32 = 1;

            fn flatten(flat: &mut Vec<$crate::canonical::CoreType>) {
                flat.push($crate::canonical::CoreType::I32);
            }
        }

        impl $crate::canonical::Lift for $name {
            fn lift(
                source: &mut $crate::canonical::Source<'_>,
                flat: &mut $crate::canonical::FlatValues<'_>,
            ) -> Result<Self, $crate::canonical::AbiError> {
                Self::from_discriminant(u32::lift(source, flat)?)
            }

            fn load(
                source: &mut $crate::canonical::Source<'_>,
                address: $crate::canonical::GuestPtr,
            ) -> Result<Self, $crate::canonical::AbiError> {
                Self::from_discriminant(u8::load(source, address)?.into())
            }
        }

        impl $crate::canonical::Lower for $name {
            fn lower(self, image: &mut $crate::canonical::Image, flat: &mut Vec<$crate::canonical::Slot>) {
                (self as u32).lower(image, flat);
            }

            fn store(
                self,
                image: &mut $crate::canonical::Image,
                block: $crate::canonical::BlockId,
                offset: u32,
            ) {
                (self as u8).store(image, block, offset);
            }
        }
    };
}

pub(crate) use {wit_enum, wit_record};
