//! Dense linear algebra for symmetric positive definite matrices of a few hundred rows.
//!
//! Invariant: the order of every sum is fixed, with no fused multiply-add and no dispatch on the processor, so that the
//! same input gives the same bits on every machine. Matrices are row-major slices of n x n; only lower triangles are read.

/// The dot product, summed in four lanes and then across.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (mut lanes, mut rest) = ([0.0; 4], 0.0);
    let (chunks_a, chunks_b) = (a.chunks_exact(4), b.chunks_exact(4));
    for (x, y) in chunks_a.remainder().iter().zip(chunks_b.remainder()) {
        rest += x * y;
    }
    for (x, y) in chunks_a.zip(chunks_b) {
        for lane in 0..4 {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]) + rest
}

/// `y += s x`.
pub(super) fn add_scaled(y: &mut [f64], s: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += s * x;
    }
}

/// Replaces the lower triangle of `a` (n x n) by its Cholesky factor L, A = L Lᵀ; false where A is not positive definite.
pub(super) fn cholesky(a: &mut [f64], n: usize) -> bool {
    for i in 0..n {
        let (above, row) = a.split_at_mut(i * n);
        for j in 0..i {
            let lj = &above[j * n..=j * n + j];
            row[j] = (row[j] - dot(&row[..j], &lj[..j])) / lj[j];
        }
        let pivot = row[i] - dot(&row[..i], &row[..i]);
        // Written so that NaN fails too.
        if !(pivot > 0.0 && pivot.is_finite()) {
            return false;
        }
        row[i] = pivot.sqrt();
    }
    true
}

/// Solves L x = b in place.
pub(super) fn solve_lower(l: &[f64], n: usize, b: &mut [f64]) {
    for i in 0..n {
        b[i] = (b[i] - dot(&l[i * n..i * n + i], &b[..i])) / l[i * n + i];
    }
}

/// Solves Lᵀ x = b in place.
pub(super) fn solve_lower_transposed(l: &[f64], n: usize, b: &mut [f64]) {
    for i in (0..n).rev() {
        let x = b[i] / l[i * n + i];
        b[i] = x;
        let (head, _) = b.split_at_mut(i);
        add_scaled(head, -x, &l[i * n..i * n + i]);
    }
}

/// Solves L X = B in place for B of n rows and m columns, row-major.
pub(super) fn solve_lower_many(l: &[f64], n: usize, b: &mut [f64], m: usize) {
    if m == 1 {
        return solve_lower(l, n, b);
    }
    for i in 0..n {
        let (above, row) = b.split_at_mut(i * m);
        let row = &mut row[..m];
        let factors = &l[i * n..i * n + i];
        // Four rows at a time, so that the row is loaded and stored a fourth as often.
        let (fours, rest) = above.split_at(i / 4 * 4 * m);
        for (f, four) in factors.chunks_exact(4).zip(fours.chunks_exact(4 * m)) {
            let (first, second) = four.split_at(2 * m);
            let ((one, two), (three, four)) = (first.split_at(m), second.split_at(m));
            for ((((x, one), two), three), four) in row.iter_mut().zip(one).zip(two).zip(three).zip(four) {
                *x -= (f[0] * one + f[1] * two) + (f[2] * three + f[3] * four);
            }
        }
        for (f, above) in factors[i / 4 * 4..].iter().zip(rest.chunks_exact(m)) {
            add_scaled(row, -f, above);
        }
        let inverse = 1.0 / l[i * n + i];
        for x in row {
            *x *= inverse;
        }
    }
}

/// The lower triangle of A⁻¹ = L⁻ᵀ L⁻¹ from the factor.
pub(super) fn inverse(l: &[f64], n: usize) -> Vec<f64> {
    // The rows of L⁻ᵀ: row i holds column i of L⁻¹, from its diagonal on.
    let mut columns = vec![0.0; n * n];
    for i in 0..n {
        let column = &mut columns[i * n..(i + 1) * n];
        column[i] = 1.0 / l[i * n + i];
        for r in i + 1..n {
            column[r] = -dot(&l[r * n + i..r * n + r], &column[i..r]) / l[r * n + r];
        }
    }
    let mut inverse = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            inverse[i * n + j] = dot(&columns[i * n + i..(i + 1) * n], &columns[j * n + i..(j + 1) * n]);
        }
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::{cholesky, dot, inverse, solve_lower, solve_lower_many, solve_lower_transposed};

    /// A symmetric positive definite matrix of any size.
    fn matrix(n: usize) -> Vec<f64> {
        let at = |i: usize, j: usize| (-(i as f64 - j as f64).abs() / 3.0).exp() + if i == j { 0.1 } else { 0.0 };
        (0..n * n).map(|k| at(k / n, k % n)).collect()
    }

    #[test]
    fn factors_solve_and_invert() {
        for n in [1, 2, 3, 7, 30] {
            let a = matrix(n);
            let mut l = a.clone();
            assert!(cholesky(&mut l, n));
            let b: Vec<f64> = (0..n).map(|i| (i as f64).cos()).collect();
            let mut x = b.clone();
            solve_lower(&l, n, &mut x);
            solve_lower_transposed(&l, n, &mut x);
            for i in 0..n {
                assert!((dot(&a[i * n..(i + 1) * n], &x) - b[i]).abs() < 1e-10);
            }
            let inverse = inverse(&l, n);
            for i in 0..n {
                let full = |j: usize| if j <= i { inverse[i * n + j] } else { inverse[j * n + i] };
                let product: f64 = (0..n).map(|j| full(j) * b[j]).sum();
                assert!((product - x[i]).abs() < 1e-10);
            }
            let mut columns: Vec<f64> = b.iter().flat_map(|b| [*b, 2.0 * b]).collect();
            solve_lower_many(&l, n, &mut columns, 2);
            let mut one = b;
            solve_lower(&l, n, &mut one);
            for i in 0..n {
                assert!((columns[2 * i] - one[i]).abs() < 1e-10 && (columns[2 * i + 1] - 2.0 * one[i]).abs() < 1e-10);
            }
        }
    }

    #[test]
    fn what_is_not_positive_definite_has_no_factor() {
        for a in [[1.0, 0.0, 2.0, 1.0], [f64::NAN, 0.0, 0.0, 1.0], [f64::INFINITY, 0.0, 0.0, 1.0], [0.0; 4]] {
            assert!(!cholesky(&mut a.clone(), 2));
        }
    }
}
