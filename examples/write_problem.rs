//! Write a problem.npz for fastcheck in Rust, with nothing but its standard library.
//!
//!     rustc -O write_problem.rs && ./write_problem problem.npz
//!     fastcheck problem.npz
//!
//! The network is 4-6-3 with sigmoid, softmax cross-entropy and an L2 penalty; its backward pass
//! is below.

#![allow(non_snake_case)] // W, X and J are the field's names

use std::{env, fs, io};

// ---- a zip file of stored entries --------------------------------------------------------------

#[derive(Default)]
struct Zip {
    bytes: Vec<u8>,
    directory: Vec<u8>, // the central directory, written at the end
    entries: u16,
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1))
        })
    })
}

impl Zip {
    fn add(&mut self, name: &str, content: &[u8]) {
        let start = self.bytes.len() as u32;
        let mut common = Vec::new(); // what both headers have
        for value in [20u16, 0, 0, 0, 0x21] {
            common.extend(value.to_le_bytes()); // version, flags, stored, time, 1980-01-01
        }
        for value in [crc32(content), content.len() as u32, content.len() as u32] {
            common.extend(value.to_le_bytes());
        }
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]); // no extra field

        self.bytes.extend(b"PK\x03\x04");
        self.bytes.extend(&common);
        self.bytes.extend(name.as_bytes());
        self.bytes.extend(content);

        self.directory.extend(b"PK\x01\x02\x14\x00");
        self.directory.extend(&common);
        self.directory.extend([0; 10]); // comment, disk, attributes
        self.directory.extend(start.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.entries += 1;
    }

    /// Add a .npy array; `kind` is `<f8` for doubles and `<i8` for whole numbers of 64 bits.
    fn add_array(&mut self, name: &str, kind: &str, shape: &[usize], data: &[u8]) {
        let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
        let fields = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({sizes}), }}");
        let mut content = b"\x93NUMPY\x01\x00\x76\x00".to_vec(); // 10 + 118 = 128 bytes
        content.extend(format!("{fields:<117}\n").into_bytes());
        content.extend(data);
        self.add(&format!("{name}.npy"), &content);
    }

    fn add_matrix(&mut self, name: &str, rows: &[Vec<f64>]) {
        self.add_array(name, "<f8", &[rows.len(), rows[0].len()], &little_endian(&rows.concat()));
    }

    fn add_vector(&mut self, name: &str, values: &[f64]) {
        self.add_array(name, "<f8", &[values.len()], &little_endian(values));
    }

    fn close(mut self) -> Vec<u8> {
        let start = self.bytes.len() as u32;
        self.bytes.extend(&self.directory);
        self.bytes.extend(b"PK\x05\x06\x00\x00\x00\x00");
        self.bytes.extend([self.entries.to_le_bytes(), self.entries.to_le_bytes()].concat());
        self.bytes.extend((self.directory.len() as u32).to_le_bytes());
        self.bytes.extend(start.to_le_bytes());
        self.bytes.extend([0, 0]); // no comment
        self.bytes
    }
}

fn little_endian(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

// ---- the network and its backward pass ---------------------------------------------------------

const M: usize = 7;
const L2: f64 = 0.25;

type Matrix = Vec<Vec<f64>>;

fn matrix(rows: usize, columns: usize, phase: f64) -> Matrix {
    let value = |i: usize| (phase + 1.7 * i as f64).sin();
    (0..rows).map(|r| (0..columns).map(|c| value(r * columns + c)).collect()).collect()
}

fn affine(W: &Matrix, b: &[f64], a: &[f64]) -> Vec<f64> {
    let dot = |row: &Vec<f64>| row.iter().zip(a).map(|(w, a)| w * a).sum::<f64>();
    W.iter().zip(b).map(|(row, b)| dot(row) + b).collect()
}

/// Add the outer product dz·aᵀ to dW, and dz to db.
fn accumulate(dW: &mut Matrix, db: &mut [f64], dz: &[f64], a: &[f64]) {
    for (i, dz) in dz.iter().enumerate() {
        db[i] += dz;
        dW[i].iter_mut().zip(a).for_each(|(dw, a)| *dw += dz * a);
    }
}

/// Add the penalty's part to dW, and return its part of J.
fn penalty(W: &Matrix, dW: &mut Matrix) -> f64 {
    for (row, d_row) in W.iter().zip(dW) {
        row.iter().zip(d_row).for_each(|(w, dw)| *dw += L2 / M as f64 * w);
    }
    L2 / (2 * M) as f64 * W.iter().flatten().map(|w| w * w).sum::<f64>()
}

fn main() -> io::Result<()> {
    let (n0, n1, n2) = (4, 6, 3);
    let X = matrix(M, n0, 0.1);
    let labels: Vec<usize> = (0..M).map(|s| s % n2).collect();
    let (W1, b1) = (matrix(n1, n0, 0.3), matrix(1, n1, 0.4).concat());
    let (W2, b2) = (matrix(n2, n1, 0.5), matrix(1, n2, 0.6).concat());
    let (mut dW1, mut db1) = (vec![vec![0.0; n0]; n1], vec![0.0; n1]);
    let (mut dW2, mut db2) = (vec![vec![0.0; n1]; n2], vec![0.0; n2]);
    let mut J = 0.0;

    for (x, &label) in X.iter().zip(&labels) {
        let a1: Vec<f64> = affine(&W1, &b1, x).iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect();
        let powers: Vec<f64> = affine(&W2, &b2, &a1).iter().map(|z| z.exp()).collect();
        let total: f64 = powers.iter().sum();
        J -= (powers[label] / total).ln() / M as f64;

        let mut dz2: Vec<f64> = powers.iter().map(|p| p / total / M as f64).collect();
        dz2[label] -= 1.0 / M as f64;
        let da1 = |i: usize| (0..n2).map(|k| dz2[k] * W2[k][i]).sum::<f64>();
        let dz1: Vec<f64> = (0..n1).map(|i| da1(i) * a1[i] * (1.0 - a1[i])).collect();
        accumulate(&mut dW2, &mut db2, &dz2, &a1);
        accumulate(&mut dW1, &mut db1, &dz1, x);
    }
    J += penalty(&W1, &mut dW1) + penalty(&W2, &mut dW2);

    let mut zip = Zip::default();
    for (name, rows) in [("X", &X), ("W1", &W1), ("W2", &W2), ("dW1", &dW1), ("dW2", &dW2)] {
        zip.add_matrix(name, rows);
    }
    for (name, values) in [("b1", &b1), ("b2", &b2), ("db1", &db1), ("db2", &db2)] {
        zip.add_vector(name, values);
    }
    let whole: Vec<u8> = labels.iter().flat_map(|&label| (label as i64).to_le_bytes()).collect();
    zip.add_array("Y", "<i8", &[M], &whole);
    zip.add_vector("J", &[J]);
    let spec = r#"{"activations": ["sigmoid", "identity"], "loss": "softmax_cross_entropy",
        "l2": 0.25, "name": "written in Rust"}"#;
    zip.add("spec.json", spec.as_bytes());
    fs::write(env::args().nth(1).unwrap_or_else(|| "problem.npz".into()), zip.close())
}
