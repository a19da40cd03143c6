// Patch distances of tiles to mask, row maxima and histogram of the anomaly map, in one pass over the map.
//
//   distances  (num_tiles, side, side) float32, at least 0. Read only.
//   grid       (grid_height, grid_width) float32, the stitched distances. Every cell is written.
//   mask       (height, ceil(width / 32)) uint32: map > threshold, one bit a pixel, the leftmost pixel in the highest
//              bit of the first byte (as np.packbits); bits beyond the width are 0. Every word is written.
//   row_peaks  (height,) float32, zero before; each row's largest value. NaN counts as larger than any number.
//   counts, residuals  (4096,) uint32 and uint64, zero before. A value of float bits v belongs to bin
//              (v >> 15) - (bits of 2^-14 >> 15) and adds v & 32767 to its residual: 256 bins an octave from 2^-14 to
//              4, whose means are exact. Values below 2^-14 are in no bin, those from 4 on count as the largest below.
//   map        (height, width) float32, or null.
//
// Tables: `*_starts` (outputs,) first grid cell of each map row and column, never falling; `row_weights` (height,
// row_taps) and `column_weights` (column_taps, width) the map operator's non-zeros; `*_offsets` and `*_shares` (cells,
// parts) where the tiles' patches of a grid row or column lie in `distances` (the two are added; -1 ends the list) and
// what they weigh. The caller owns all memory.
//
// Grid: ceil(width / 128) x ceil(height / block_rows) blocks of 256 threads. block_rows is such that no block needs
// more than 24 grid rows and 8192 grid cells.
//
// A block stitches the cells it needs, filters their rows to its 128 columns, both in shared memory, then makes its
// map rows, a warp a row, four columns a thread. float32 throughout, no fused multiply-add: the twin and the mask on
// the CPU agree bit for bit.
//
// Cost at 2072x2072, patch 14: 5 + 0.9 taps and about 40 instructions a pixel, 1.7e8 together, some 10 us on an H200;
// histogram atomics in shared memory add up to 4 times that where neighbouring pixels are equal. Bytes: 0.6 MB (mask
// and distances), 0.1 us at 4.3 TB/s; with `map` 17.8 MB, 4.1 us. Target: below 300 us.

using u32 = unsigned int;
using u64 = unsigned long long;

constexpr int THREADS = 256;
constexpr int WARP = 32;
constexpr int COLUMNS = 128;
constexpr int THREAD_COLUMNS = COLUMNS / WARP;
constexpr int STAGED_ROWS = 24;
constexpr int BINS = 4096;
constexpr u32 FIRST_BITS = (127 - 14) << 23;
constexpr u32 LAST_BITS = FIRST_BITS + (BINS << 15) - 1;
constexpr u32 ALL_LANES = 0xffffffff;

__device__ inline float accumulate(float sum, float weight, float value) {
    return __fadd_rn(sum, __fmul_rn(weight, value));
}

__device__ inline u32 warp_max(u32 value) {
#if __CUDA_ARCH__ >= 800
    return __reduce_max_sync(ALL_LANES, value);
#else
    for (int distance = WARP / 2; distance; distance /= 2)
        value = max(value, __shfl_xor_sync(ALL_LANES, value, distance));
    return value;
#endif
}

// Bits of 32 pixels, lane 0 leftmost, in the order of np.packbits.
__device__ inline u32 packed(u32 ballot) { return __byte_perm(__brev(ballot), 0, 0x0123); }

struct Axis {
    const int *starts;
    const float *weights;
    int taps;
    const int *offsets;
    const float *shares;
    int parts;
};

// One cell of the stitched grid: the tiles' patches there, weighed, in the order of the tiles.
__device__ inline float stitched(const float *distances, const Axis &rows, const Axis &columns, int y, int x) {
    float sum = 0;
    for (int i = 0; i < rows.parts; ++i) {
        const int row = __ldg(rows.offsets + y * rows.parts + i);
        if (row < 0) break;
        const float row_share = __ldg(rows.shares + y * rows.parts + i);
        for (int j = 0; j < columns.parts; ++j) {
            const int column = __ldg(columns.offsets + x * columns.parts + j);
            if (column < 0) break;
            const float share = __ldg(columns.shares + x * columns.parts + j);
            sum = __fadd_rn(sum, __fmul_rn(__fmul_rn(__ldg(distances + row + column), row_share), share));
        }
    }
    return sum;
}

// The grid cells that a block stages along one axis, and how many of them are its to write.
struct Cells {
    int first, num_own, num;
};

__device__ inline Cells cells_of(const Axis &axis, int first_output, int outputs, int all_outputs, int all_cells) {
    const int next = first_output + outputs;
    const int first = first_output ? __ldg(axis.starts + first_output) : 0;
    const int own_end = next < all_outputs ? __ldg(axis.starts + next) : all_cells;
    const int end = __ldg(axis.starts + min(next, all_outputs) - 1) + axis.taps;
    return {first, own_end - first, max(end, own_end) - first};
}

extern "C" __global__ void __launch_bounds__(THREADS)
    map_and_mask(const float *__restrict__ distances, float *grid, u32 *mask, u32 *row_peaks, u32 *counts,
                 u64 *residuals, float *map, int height, int width, int grid_height, int grid_width, int block_rows,
                 float threshold, const int *row_starts, const float *row_weights, int row_taps,
                 const int *column_starts, const float *column_weights, int column_taps, const int *row_offsets,
                 const float *row_shares, int row_parts, const int *column_offsets, const float *column_shares,
                 int column_parts) {
    __shared__ float wide[STAGED_ROWS][COLUMNS];
    // Counts, then residuals; before that the stitched cells lie here.
    __shared__ u32 histogram[2 * BINS];
    float *const cells = reinterpret_cast<float *>(histogram);

    const Axis rows = {row_starts, row_weights, row_taps, row_offsets, row_shares, row_parts};
    const Axis columns = {column_starts, column_weights, column_taps, column_offsets, column_shares, column_parts};
    const int left = blockIdx.x * COLUMNS, top = blockIdx.y * block_rows;
    const int thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
    const Cells down = cells_of(rows, top, block_rows, height, grid_height);
    const Cells across = cells_of(columns, left, COLUMNS, width, grid_width);

    for (int i = thread; i < down.num * across.num; i += THREADS) {
        const int y = i / across.num, x = i - y * across.num;
        const float cell = stitched(distances, rows, columns, down.first + y, across.first + x);
        cells[i] = cell;
        if (y < down.num_own && x < across.num_own) {
            grid[static_cast<u64>(down.first + y) * grid_width + across.first + x] = cell;
        }
    }
    __syncthreads();

    for (int i = thread; i < down.num * COLUMNS; i += THREADS) {
        const int y = i / COLUMNS, x = i % COLUMNS;
        float sum = 0;
        if (left + x < width) {
            const float *cell = cells + y * across.num + __ldg(column_starts + left + x) - across.first;
            for (int tap = 0; tap < column_taps; ++tap) {
                sum = accumulate(sum, __ldg(column_weights + static_cast<u64>(tap) * width + left + x), cell[tap]);
            }
        }
        wide[y][x] = sum;
    }
    __syncthreads();

    for (int i = thread; i < 2 * BINS; i += THREADS) histogram[i] = 0;
    __syncthreads();

    const int mask_words = (width + WARP - 1) / WARP;
    for (int y = top + warp; y < min(top + block_rows, height); y += THREADS / WARP) {
        const float *cell = &wide[__ldg(row_starts + y) - down.first][lane];
        const float *weights = row_weights + static_cast<u64>(y) * row_taps;
        float values[THREAD_COLUMNS] = {};
        for (int tap = 0; tap < row_taps; ++tap) {
            const float weight = __ldg(weights + tap);
#pragma unroll
            for (int i = 0; i < THREAD_COLUMNS; ++i) {
                values[i] = accumulate(values[i], weight, cell[tap * COLUMNS + i * WARP]);
            }
        }
        u32 peak = 0, word = 0;
#pragma unroll
        for (int i = 0; i < THREAD_COLUMNS; ++i) {
            const int x = left + i * WARP + lane;
            const bool is_inside = x < width;
            const u32 bits = __float_as_uint(values[i]) & 0x7fffffff;
            const u32 ballot = __ballot_sync(ALL_LANES, is_inside && values[i] > threshold);
            if (lane == i) word = packed(ballot);
            if (is_inside) {
                peak = max(peak, bits);
                if (bits >= FIRST_BITS) {
                    const u32 offset = min(bits, LAST_BITS) - FIRST_BITS;
                    atomicAdd(histogram + (offset >> 15), 1u);
                    atomicAdd(histogram + BINS + (offset >> 15), offset & 32767);
                }
                if (map) map[static_cast<u64>(y) * width + x] = values[i];
            }
        }
        if (lane < THREAD_COLUMNS && left / WARP + lane < mask_words) {
            mask[static_cast<u64>(y) * mask_words + left / WARP + lane] = word;
        }
        peak = warp_max(peak);
        if (lane == 0) atomicMax(row_peaks + y, peak);
    }
    __syncthreads();

    for (int i = thread; i < BINS; i += THREADS) {
        if (histogram[i]) {
            atomicAdd(counts + i, histogram[i]);
            atomicAdd(residuals + i, static_cast<u64>(histogram[BINS + i]));
        }
    }
}
