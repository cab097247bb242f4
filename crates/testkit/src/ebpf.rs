//! A small assembler for eBPF, and the object file that `tc` loads: enough for a program of some dozens of instructions, so that
//! no compiler for it is needed.
//!
//! Instruction set: RFC 9669. The kernel's verifier has the last word on every program.

use std::collections::BTreeMap;

use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

/// Section of the object file with the program.
pub const SECTION: &str = "tc";

/// A register. R0: result; R1 to R5: arguments, lost in a call; R6 to R9: kept; R10: end of the stack.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "said above")]
pub enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R6 = 6,
    R7,
    R8,
    R10 = 10,
}

/// How many bytes a load or store moves.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Width {
    Bytes1 = 0x10,
    Bytes2 = 0x08,
    Bytes4 = 0x00,
    Bytes8 = 0x18,
}

/// A program in the making.
#[derive(Debug, Default)]
pub struct Assembler {
    code: Vec<Instruction>,
    labels: BTreeMap<&'static str, usize>,
}

#[derive(Debug)]
struct Instruction {
    operation: u8,
    target: u8,
    source: u8,
    offset: i16,
    number: i32,
    jumps_to: Option<&'static str>,
}

impl Assembler {
    /// `target = source`.
    pub fn copy(&mut self, target: Register, source: Register) {
        self.push(0xbf, target as u8, source as u8, 0, 0);
    }

    /// `target = number`.
    pub fn set(&mut self, target: Register, number: i32) {
        self.push(0xb7, target as u8, 0, 0, number);
    }

    /// `target += number`.
    pub fn add(&mut self, target: Register, number: i32) {
        self.push(0x07, target as u8, 0, 0, number);
    }

    /// `target &= number`.
    pub fn and(&mut self, target: Register, number: i32) {
        self.push(0x57, target as u8, 0, 0, number);
    }

    /// `target = *(base + offset)`.
    pub fn load(&mut self, width: Width, target: Register, base: Register, offset: i16) {
        self.push(0x61 | width as u8, target as u8, base as u8, offset, 0);
    }

    /// `*(base + offset) = source`.
    pub fn store(&mut self, width: Width, base: Register, offset: i16, source: Register) {
        self.push(0x63 | width as u8, base as u8, source as u8, offset, 0);
    }

    /// `*(base + offset) = number`.
    pub fn store_number(&mut self, width: Width, base: Register, offset: i16, number: i32) {
        self.push(0x62 | width as u8, base as u8, 0, offset, number);
    }

    /// Goes on at `label` if the register has that value.
    pub fn jump_if_equal(&mut self, register: Register, number: i32, label: &'static str) {
        self.push_jump(0x15, register as u8, 0, number, label);
    }

    /// Goes on at `label` unless the register has that value.
    pub fn jump_unless_equal(&mut self, register: Register, number: i32, label: &'static str) {
        self.push_jump(0x55, register as u8, 0, number, label);
    }

    /// Goes on at `label` if `register > limit`, both unsigned.
    pub fn jump_if_above(&mut self, register: Register, limit: Register, label: &'static str) {
        self.push_jump(0x2d, register as u8, limit as u8, 0, label);
    }

    /// Goes on at `label`.
    pub fn jump(&mut self, label: &'static str) {
        self.push_jump(0x05, 0, 0, 0, label);
    }

    /// The next instruction is where jumps to `name` lead.
    pub fn label(&mut self, name: &'static str) {
        self.labels.insert(name, self.code.len());
    }

    /// Calls a function of the kernel by its number.
    pub fn call(&mut self, helper: i32) {
        self.push(0x85, 0, 0, 0, helper);
    }

    /// Ends with the value of R0.
    pub fn exit(&mut self) {
        self.push(0x95, 0, 0, 0, 0);
    }

    /// The object file, with a licence that the kernel takes for one that may call every function of its.
    pub fn object(&self) -> anyhow::Result<Vec<u8>> {
        let mut file = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        let section = file.add_section(Vec::new(), SECTION.into(), SectionKind::Text);
        let code = self.bytes()?;
        file.append_section_data(section, &code, 8);
        file.add_symbol(Symbol {
            name: b"program".to_vec(),
            value: 0,
            size: code.len().try_into()?,
            kind: SymbolKind::Text,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
        let licence = file.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
        file.append_section_data(licence, b"Dual MIT/GPL\0", 1);
        Ok(file.write()?)
    }

    fn push(&mut self, operation: u8, target: u8, source: u8, offset: i16, number: i32) {
        self.code.push(Instruction { operation, target, source, offset, number, jumps_to: None });
    }

    fn push_jump(&mut self, operation: u8, target: u8, source: u8, number: i32, label: &'static str) {
        let jumps_to = Some(label);
        self.code.push(Instruction { operation, target, source, offset: 0, number, jumps_to });
    }

    fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(8 * self.code.len());
        for (index, instruction) in self.code.iter().enumerate() {
            let offset = match instruction.jumps_to {
                None => instruction.offset,
                Some(label) => {
                    let to = self.labels.get(label).ok_or_else(|| anyhow::anyhow!("no label {label}"))?;
                    // Counted from the next instruction.
                    i16::try_from(to.cast_signed() - (index + 1).cast_signed())?
                }
            };
            bytes.extend([instruction.operation, instruction.source << 4 | instruction.target]);
            bytes.extend(offset.to_le_bytes());
            bytes.extend(instruction.number.to_le_bytes());
        }
        Ok(bytes)
    }
}
