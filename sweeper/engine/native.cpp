// What a compiled step does by our own code on a CPU: products of small matrices, and the masks of dropout. One slot is
// done by one thread, by the same code for any number of slots.
//
// PRODUCTS
// out[s] = left[s] @ right[s], for s < S; left is M x K, right K x N, each with any strides. Libraries spend more on
// choosing a kernel and repacking than such a product takes, and MKL chooses by S, so that a slot's bits depend on its
// company. Here columns are done a few vectors at a time, and every element sums its K terms in order, one FMA each.
//
// MASKS are dropout.kept, bit for bit. Inductor would work a mask out twice, forwards and backwards, and with half the
// speed: it has no unsigned shifts.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int64_t WIDTH = 16;
#elif defined(__AVX__)
constexpr int64_t WIDTH = 8;
#else
constexpr int64_t WIDTH = 4;
#endif

typedef float Lanes __attribute__((vector_size(WIDTH * sizeof(float))));
typedef float Loose __attribute__((vector_size(WIDTH * sizeof(float)), aligned(4)));  // at any address

struct Matrix {
  const float* at;
  int64_t down, across;  // strides, in numbers
};

// ROWS x (COLUMNS * WIDTH) numbers of the output, held in registers while K runs.
template <int ROWS, int COLUMNS>
inline void tile(Matrix left, Matrix right, float* out, int64_t out_down, int64_t inner) {
  Lanes sums[ROWS][COLUMNS] = {};
  for (int64_t k = 0; k < inner; k++) {
    Lanes row[COLUMNS];
    for (int c = 0; c < COLUMNS; c++) row[c] = *reinterpret_cast<const Loose*>(right.at + k * right.down + c * WIDTH);
    for (int r = 0; r < ROWS; r++) {
      const float number = left.at[r * left.down + k * left.across];
      for (int c = 0; c < COLUMNS; c++) sums[r][c] += number * row[c];
    }
  }
  for (int r = 0; r < ROWS; r++)
    for (int c = 0; c < COLUMNS; c++) *reinterpret_cast<Loose*>(out + r * out_down + c * WIDTH) = sums[r][c];
}

template <int COLUMNS>
void strip(Matrix left, Matrix right, float* out, int64_t out_down, int64_t rows, int64_t inner) {
  constexpr int TALL = COLUMNS >= 4 ? 6 : 8;  // as many sums as there are registers for
  int64_t r = 0;
  auto from = [&](int64_t row) { return Matrix{left.at + row * left.down, left.down, left.across}; };
  for (; r + TALL <= rows; r += TALL) tile<TALL, COLUMNS>(from(r), right, out + r * out_down, out_down, inner);
  for (; r + 2 <= rows; r += 2) tile<2, COLUMNS>(from(r), right, out + r * out_down, out_down, inner);
  for (; r < rows; r++) tile<1, COLUMNS>(from(r), right, out + r * out_down, out_down, inner);
}

// right has neighbours side by side, at least WIDTH of them. The last vector may do some columns a second time, to the
// same effect.
void product(Matrix left, Matrix right, float* out, int64_t out_down, int64_t rows, int64_t columns, int64_t inner) {
  int64_t c = 0;
  auto from = [&](int64_t column) { return Matrix{right.at + column, right.down, 1}; };
  for (; c + 4 * WIDTH <= columns; c += 4 * WIDTH) strip<4>(left, from(c), out + c, out_down, rows, inner);
  for (; c + 2 * WIDTH <= columns; c += 2 * WIDTH) strip<2>(left, from(c), out + c, out_down, rows, inner);
  for (; c + WIDTH <= columns; c += WIDTH) strip<1>(left, from(c), out + c, out_down, rows, inner);
  if (c < columns) strip<1>(left, from(columns - WIDTH), out + columns - WIDTH, out_down, rows, inner);
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SWEEPER_SHUFFLES
#endif
#endif

#ifdef SWEEPER_SHUFFLES
// Swaps the off-diagonal quarters of every 2H x 2H block that two rows, H apart, have a part in.
template <int H, int... Js>
inline void swap_quarters(Lanes& upper, Lanes& lower, std::integer_sequence<int, Js...>) {
  const Lanes up = upper, low = lower;
  upper = __builtin_shufflevector(up, low, ((Js & H) ? static_cast<int>(WIDTH) + Js - H : Js)...);
  lower = __builtin_shufflevector(up, low, ((Js & H) ? static_cast<int>(WIDTH) + Js : Js + H)...);
}

template <int H>
inline void transpose(Lanes (&rows)[WIDTH]) {
  for (int r = 0; r < WIDTH; r++)
    if (!(r & H)) swap_quarters<H>(rows[r], rows[r + H], std::make_integer_sequence<int, WIDTH>{});
  if constexpr (H > 1) transpose<H / 2>(rows);
}

// to[r][c] = from[c][r] for a whole block.
inline void transposed_block(const float* from, int64_t from_down, float* to, int64_t to_down) {
  Lanes rows[WIDTH];
  for (int r = 0; r < WIDTH; r++) rows[r] = *reinterpret_cast<const Loose*>(from + r * from_down);
  transpose<WIDTH / 2>(rows);
  for (int r = 0; r < WIDTH; r++) *reinterpret_cast<Loose*>(to + r * to_down) = rows[r];
}
#endif

void copy_block(Matrix from, float* to, int64_t rows, int64_t columns, int64_t wide) {
#ifdef SWEEPER_SHUFFLES
  if (rows == WIDTH && columns >= WIDTH && from.down == 1) return transposed_block(from.at, from.across, to, wide);
#endif
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < WIDTH; c++) to[r * wide + c] = c < columns ? from.at[r * from.down + c * from.across] : 0.0f;
}

// Copies a matrix so that neighbours stand side by side, in rows of `wide` numbers, zeros behind.
void pack(Matrix from, float* to, int64_t rows, int64_t columns, int64_t wide) {
  for (int64_t r = 0; r < rows; r += WIDTH)
    for (int64_t c = 0; c < wide; c += WIDTH) {
      const Matrix block{from.at + r * from.down + c * from.across, from.down, from.across};
      copy_block(block, to + r * wide + c, std::min(WIDTH, rows - r), columns - c, wide);
    }
}

float* scratch(int64_t numbers) {
  thread_local std::vector<float> memory;
  if (static_cast<int64_t>(memory.size()) < numbers) memory.resize(numbers);
  return memory.data();
}

void one(Matrix left, Matrix right, float* out, int64_t rows, int64_t columns, int64_t inner) {
  const bool narrow = columns < WIDTH;
  const int64_t wide = narrow ? WIDTH : columns;
  const bool packed = narrow || right.across != 1;
  const int64_t row = (wide + WIDTH - 1) / WIDTH * WIDTH;  // packing writes whole vectors
  float* memory = scratch((packed ? inner * row : 0) + (narrow ? rows * wide : 0));
  float* room = memory + (packed ? inner * row : 0);
  if (packed) {
    pack(right, memory, inner, columns, row);
    right = Matrix{memory, row, 1};
  }
  product(left, right, narrow ? room : out, wide, rows, wide, inner);
  if (narrow)
    for (int64_t r = 0; r < rows; r++) std::memcpy(out + r * columns, room + r * wide, columns * sizeof(float));
}

Matrix slot(const at::Tensor& all, int64_t s) {
  return {all.const_data_ptr<float>() + s * all.stride(0), all.stride(1), all.stride(2)};
}

at::Tensor shape_of_products(const at::Tensor& left, const at::Tensor& right) {
  return at::empty({left.size(0), left.size(1), right.size(2)}, left.options());
}

at::Tensor products(const at::Tensor& left, const at::Tensor& right) {
  const int64_t slots = left.size(0), rows = left.size(1), inner = left.size(2), columns = right.size(2);
  TORCH_CHECK(right.size(0) == slots && right.size(1) == inner, "products: ", left.sizes(), " @ ", right.sizes());
  at::Tensor out = at::empty({slots, rows, columns}, left.options());
  float* numbers = out.mutable_data_ptr<float>();
  at::parallel_for(0, slots, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; s++)
      one(slot(left, s), slot(right, s), numbers + s * rows * columns, rows, columns, inner);
  });
  return out;
}

// The same finaliser as in random.py; unsigned, so that a shift brings in zeros.
inline uint32_t mixed(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7FEB352Du;
  x = (x ^ (x >> 15)) * 0x846CA68Bu;
  return x ^ (x >> 16);
}

void mask(uint32_t key0, uint32_t key1, uint32_t threshold, int64_t numbers, int32_t* out) {
  for (int64_t n = 0; n < numbers; n++)
    out[n] = (mixed(mixed(static_cast<uint32_t>(n) ^ key0) + key1) >> 8) < threshold;
}

inline uint32_t word(const at::Tensor& all, int64_t s) {
  return static_cast<uint32_t>(all.const_data_ptr<int32_t>()[s * all.stride(0)]);
}

at::Tensor shape_of_masks(const at::Tensor& key0, const at::Tensor&, const at::Tensor&, int64_t numbers) {
  return at::empty({key0.size(0), numbers}, key0.options());
}

at::Tensor masks(const at::Tensor& key0, const at::Tensor& key1, const at::Tensor& threshold, int64_t numbers) {
  at::Tensor out = shape_of_masks(key0, key1, threshold, numbers);
  int32_t* numbers_out = out.mutable_data_ptr<int32_t>();
  at::parallel_for(0, key0.numel(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; s++)
      mask(word(key0, s), word(key1, s), word(threshold, s), numbers, numbers_out + s * numbers);
  });
  return out;
}

}  // namespace

TORCH_LIBRARY(sweeper_cpu, library) {
  library.def("products(Tensor left, Tensor right) -> Tensor");
  library.def("masks(Tensor key0, Tensor key1, Tensor threshold, int numbers) -> Tensor");
}
TORCH_LIBRARY_IMPL(sweeper_cpu, Meta, library) {
  library.impl("products", shape_of_products);
  library.impl("masks", shape_of_masks);
}
TORCH_LIBRARY_IMPL(sweeper_cpu, CPU, library) {
  library.impl("products", products);
  library.impl("masks", masks);
}
