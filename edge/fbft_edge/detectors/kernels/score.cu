// Histogram and row maxima of an anomaly map to its score and peak.
//
//   counts, residuals  (4096,) uint32 and uint64, as map_and_mask.cu makes them. Zeroed for the next frame.
//   row_peaks  (height,) float32. Zeroed for the next frame.
//   result     (2,) float32: the score, the mean of the `top_count` largest values; and the largest value. A NaN or an
//              infinity anywhere in the map makes the second one NaN or infinite.
//
// The caller owns all memory. Grid: one block of 1024 threads.
//
// Whole bins count exactly; of the bin that the last value falls into, as many as are needed count with its mean.
// Values that are in no bin, all below 2^-14, count as 0. So the score is never above the exact mean but for float32's
// rounding, and below it by less than one bin's width, 1/256 of that bin's values, times the boundary bin's share of
// `top_count`; or by 2^-14 where the whole map is that small. On 1036x1036 maps of gamma distributed distances it was
// at most 2e-5 of the score. Sums are integers, then float64 in one fixed order: the same every time.
//
// Cost: 48 KB of histogram and 4 bytes a row, read and zeroed once by one block: some 5 us on an H200.

using u32 = unsigned int;
using u64 = unsigned long long;

constexpr int THREADS = 1024;
constexpr int BINS = 4096;
constexpr int THREAD_BINS = BINS / THREADS;
constexpr u32 FIRST_BIN = (127 - 14) << 8;
constexpr double RESIDUAL_STEP = 1.0 / (1 << 23);

// The sum of the `taken` values of a bin, or of as many of its mean.
__device__ inline double bin_sum(int bin, u32 taken, u32 count, u64 residual) {
    const double lowest = __uint_as_float((FIRST_BIN + bin) << 15);
    const double octave = __uint_as_float((FIRST_BIN + bin) << 15 & 0x7f800000);
    const double share = taken == count ? residual : static_cast<double>(residual) * taken / count;
    return taken * lowest + share * (octave * RESIDUAL_STEP);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    score(u32 *counts, u64 *residuals, u32 *row_peaks, float *result, int height, u32 top_count) {
    __shared__ u32 above[THREADS];
    __shared__ u32 peaks[THREADS];
    __shared__ double sums[THREADS];
    const int thread = threadIdx.x;

    u32 own[THREAD_BINS], count = 0, peak = 0;
#pragma unroll
    for (int i = 0; i < THREAD_BINS; ++i) {
        own[i] = counts[thread * THREAD_BINS + i];
        count += own[i];
    }
    for (int y = thread; y < height; y += THREADS) {
        peak = max(peak, row_peaks[y]);
        row_peaks[y] = 0;
    }
    above[thread] = count;
    peaks[thread] = peak;
    __syncthreads();

    // Sums over this thread's bins and all above.
    for (int distance = 1; distance < THREADS; distance *= 2) {
        const u32 more = thread + distance < THREADS ? above[thread + distance] : 0;
        __syncthreads();
        above[thread] += more;
        __syncthreads();
    }

    u32 before = above[thread] - count;
    double sum = 0;
#pragma unroll
    for (int i = THREAD_BINS - 1; i >= 0; --i) {
        const int bin = thread * THREAD_BINS + i;
        const u32 taken = before < top_count ? min(own[i], top_count - before) : 0;
        if (taken) sum += bin_sum(bin, taken, own[i], residuals[bin]);
        before += own[i];
        counts[bin] = 0;
        residuals[bin] = 0;
    }
    sums[thread] = sum;
    for (int distance = THREADS / 2; distance; distance /= 2) {
        __syncthreads();
        if (thread < distance) {
            sums[thread] += sums[thread + distance];
            peaks[thread] = max(peaks[thread], peaks[thread + distance]);
        }
    }
    if (thread == 0) {
        result[0] = static_cast<float>(sums[0] / top_count);
        result[1] = __uint_as_float(peaks[0]);
    }
}
