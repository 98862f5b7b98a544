//! Records, enums and variants of the WIT files as Rust types.

/// Declares a WIT record: its fields in order, at least one, each of a type that crosses the boundary.
macro_rules! wit_record {
    ($(#[$attribute:meta])* pub struct $name:ident { $($(#[$field_attribute:meta])* pub $field:ident: $type:ty,)+ }) => {
        #[derive(Clone, Debug, PartialEq, Eq)]
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
            const FLAT_LEN: usize = 0 $(+ <$type>::FLAT_LEN)*;

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
            const FLAT_LEN: usize = 1;

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

/// Declares a WIT variant: its cases in order, at most 256, each with a payload.
macro_rules! wit_variant {
    ($(#[$attribute:meta])* pub enum $name:ident { $($(#[$case_attribute:meta])* $case:ident($type:ty),)+ }) => {
        #[derive(Clone, Debug, PartialEq, Eq)]
        $(#[$attribute])*
        pub enum $name {
            $($(#[$case_attribute])* $case($type),)+
        }

        const _: () = {
            use $crate::canonical::{
                AbiError, AbiType, BlockId, CoreType, FlatValues, GuestPtr, Image, Lift, Lower, Slot, Source, variant,
            };

            /// Its cases without their payloads.
            #[derive(Clone, Copy)]
            enum Case {
                $($case,)+
            }

            const CASES: &[Case] = &[$(Case::$case),+];

            fn case(discriminant: u32) -> Result<Case, AbiError> {
                CASES.get(discriminant as usize).copied().ok_or_else(|| {
                    $crate::canonical::Fault::UnknownDiscriminant { discriminant, cases: CASES.len() as u32 }.into()
                })
            }

            fn shared() -> Vec<CoreType> {
                variant::joined([$(<$type>::flat()),+])
            }

            impl AbiType for $name {
                const SIZE: u32 = {
                    assert!(CASES.len() <= 256);
                    let mut size = 0;
                    $(size = variant::max(size, <$type>::SIZE);)+
                    variant::variant_size(size, Self::ALIGN)
                };
                const ALIGN: u32 = {
                    let mut align = 1;
                    $(align = variant::max(align, <$type>::ALIGN);)+
                    align
                };
                const FLAT_LEN: usize = {
                    let mut longest = 0;
                    $(longest = variant::max_len(longest, <$type>::FLAT_LEN);)*
                    1 + longest
                };

                fn flatten(flat: &mut Vec<CoreType>) {
                    flat.push(CoreType::I32);
                    flat.extend(shared());
                }
            }

            impl Lift for $name {
                fn lift(source: &mut Source<'_>, flat: &mut FlatValues<'_>) -> Result<Self, AbiError> {
                    let case = case(u32::lift(source, flat)?)?;
                    let payload = &mut flat.take(Self::FLAT_LEN - 1)?;
                    match case {
                        $(Case::$case => <$type>::lift(source, payload).map(Self::$case),)+
                    }
                }

                fn load(source: &mut Source<'_>, address: GuestPtr) -> Result<Self, AbiError> {
                    let case = case(u8::load(source, address)?.into())?;
                    let payload = address.offset(variant::payload_offset(Self::ALIGN));
                    match case {
                        $(Case::$case => <$type>::load(source, payload).map(Self::$case),)+
                    }
                }
            }

            impl Lower for $name {
                fn lower(self, image: &mut Image, flat: &mut Vec<Slot>) {
                    match self {
                        $(Self::$case(payload) => {
                            variant::lower_case(Case::$case as u32, Some(payload), &shared(), image, flat);
                        })+
                    }
                }

                fn store(self, image: &mut Image, block: BlockId, offset: u32) {
                    let payload_offset = offset + variant::payload_offset(Self::ALIGN);
                    match self {
                        $(Self::$case(payload) => {
                            (Case::$case as u8).store(image, block, offset);
                            payload.store(image, block, payload_offset);
                        })+
                    }
                }
            }
        };
    };
}

pub(crate) use {wit_enum, wit_record, wit_variant};
