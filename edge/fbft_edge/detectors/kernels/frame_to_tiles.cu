// Camera frame to RGB tiles, in one pass: format conversion, optional resize, cutting.
//
//   frame    pitch * rows bytes, 4-byte aligned; rows is height, for NV12 height * 3 / 2. Read only.
//            rgb8, bgr8: 3 bytes a pixel. mono8, bayer_*: 1. mono16: 2, native byte order, even pitch.
//            nv12: height rows of luma, then height / 2 rows of interleaved chroma; even sides.
//            bayer_*: named by the first row of the 2x2 cell; at least 3x3 pixels.
//   tiles    (num_tiles, tile_px, tile_px, 3) uint8 RGB, 16-byte aligned. Every byte is written.
//   origins  (num_tiles, 2) int32: top and left of each tile in the (scaled) frame. What lies beyond the frame
//            repeats its edge.
//   num_pixels = num_tiles * tile_px^2 < 2^31; tile_px comes with the factor and shift that divide by it.
//
// The caller owns all memory. Grid: ceil(num_pixels / 1024) blocks of 256 threads. Entries: frame_to_tiles_FORMAT,
// and frame_to_tiles_FORMAT_scaled, which resizes with taps per axis (see the twin).
//
// Arithmetic, the same as OpenCV's: mono16 (v + 128) / 257; NV12 in 20-bit fixed point; Bayer bilinear, the border
// taking its neighbours' colours; resize in float32, columns first, no fused multiply-add.
//
// Cost: no arithmetic to speak of. 2072x2072 RGB8 in 36 tiles of 392 px reads 12.9 MB and writes 16.6 MB: 6.9 us at
// the 4.3 TB/s of an H200. A thread makes 4 neighbouring pixels, 12 bytes; a block gathers 3072 bytes in shared
// memory, and stores them 16 at a time.

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

constexpr u32 THREADS = 256;
constexpr u32 THREAD_PX = 4;
constexpr u32 BLOCK_PX = THREADS * THREAD_PX;
static_assert(3 * BLOCK_PX / 16 <= THREADS, "each thread stores 16 bytes at most");

struct Frame {
    const u8 *bytes;
    u32 pitch;
    int height;
    int width;
    int rows;

    __device__ u64 place(int y, u32 byte) const { return static_cast<u64>(y) * pitch + byte; }

    __device__ u32 byte(int y, u32 column) const { return __ldg(bytes + place(y, column)); }

    // COUNT words from any byte of a row on, through the aligned words that hold them; false where those may leave the
    // frame: they end less than 16 bytes behind the row.
    template <int COUNT>
    __device__ bool words(int y, u32 column, u32 (&out)[COUNT]) const {
        const u64 first = place(y, column);
        const bool is_near_end = y + 1 == rows || pitch < 16;
        if (is_near_end && column + 4 * (COUNT + 1) > pitch) return false;
        const u32 *aligned = reinterpret_cast<const u32 *>(bytes) + (first >> 2);
        const u32 shift = 8 * static_cast<u32>(first & 3);
        u32 low = __ldg(aligned);
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            const u32 high = __ldg(aligned + i + 1);
            out[i] = __funnelshift_r(low, high, shift);
            low = high;
        }
        return true;
    }
};

struct Rgb {
    u32 red, green, blue;
};

// Bytes 0 to 5 of two words; `i` is known when compiling.
__device__ inline u32 byte_of(const u32 (&words)[2], int i) { return words[i >> 2] >> (8 * (i & 3)) & 255; }

// Twelve bytes of RGB from four pixels.
__device__ inline void pack(const Rgb (&p)[4], u32 (&out)[3]) {
    out[0] = p[0].red | p[0].green << 8 | p[0].blue << 16 | p[1].red << 24;
    out[1] = p[1].green | p[1].blue << 8 | p[2].red << 16 | p[2].green << 24;
    out[2] = p[2].blue | p[3].red << 8 | p[3].green << 16 | p[3].blue << 24;
}

// Each format reads one pixel of the frame (`at`), or four neighbours of one row as packed RGB (`four`), which may
// refuse near the frame's end or border.

struct Rgb8 {
    static __device__ int rows(int height) { return height; }

    static __device__ Rgb at(const Frame &frame, int y, int x) {
        return {frame.byte(y, 3 * x), frame.byte(y, 3 * x + 1), frame.byte(y, 3 * x + 2)};
    }

    static __device__ bool four(const Frame &frame, int y, int x, u32 (&out)[3]) { return frame.words(y, 3 * x, out); }
};

struct Bgr8 {
    static __device__ int rows(int height) { return height; }

    static __device__ Rgb at(const Frame &frame, int y, int x) {
        return {frame.byte(y, 3 * x + 2), frame.byte(y, 3 * x + 1), frame.byte(y, 3 * x)};
    }

    static __device__ bool four(const Frame &frame, int y, int x, u32 (&out)[3]) {
        u32 in[3];
        if (!frame.words(y, 3 * x, in)) return false;
        out[0] = __byte_perm(in[0], in[1], 0x5012);
        out[1] = __byte_perm(__byte_perm(in[0], in[1], 0x7034), in[2], 0x3410);
        out[2] = __byte_perm(in[1], in[2], 0x5672);
        return true;
    }
};

struct Mono8 {
    static __device__ int rows(int height) { return height; }

    static __device__ Rgb at(const Frame &frame, int y, int x) {
        const u32 level = frame.byte(y, x);
        return {level, level, level};
    }

    static __device__ bool four(const Frame &frame, int y, int x, u32 (&out)[3]) {
        u32 in[1];
        if (!frame.words(y, x, in)) return false;
        out[0] = __byte_perm(in[0], 0, 0x1000);
        out[1] = __byte_perm(in[0], 0, 0x2211);
        out[2] = __byte_perm(in[0], 0, 0x3332);
        return true;
    }
};

struct Mono16 {
    static __device__ int rows(int height) { return height; }

    static __device__ Rgb at(const Frame &frame, int y, int x) {
        const u32 sample = __ldg(reinterpret_cast<const u16 *>(frame.bytes + frame.place(y, 2 * x)));
        const u32 level = (sample + 128) / 257;
        return {level, level, level};
    }

    static __device__ bool four(const Frame &frame, int y, int x, u32 (&out)[3]) {
        u32 in[2];
        if (!frame.words(y, 2 * x, in)) return false;
        Rgb pixels[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const u32 level = ((in[i >> 1] >> (16 * (i & 1)) & 65535) + 128) / 257;
            pixels[i] = {level, level, level};
        }
        pack(pixels, out);
        return true;
    }
};

struct Nv12 {
    static __device__ int rows(int height) { return height + height / 2; }

    static __device__ u32 level(int fixed) { return min(max(fixed >> 20, 0), 255); }

    // BT.601, limited range, in 20-bit fixed point.
    static __device__ Rgb rgb(int luma, int cb, int cr) {
        const int grey = max(luma - 16, 0) * 1220542 + (1 << 19);
        const int u = cb - 128, v = cr - 128;
        return {level(grey + 1673527 * v), level(grey - 852492 * v - 409993 * u), level(grey + 2116026 * u)};
    }

    static __device__ Rgb at(const Frame &frame, int y, int x) {
        const int chroma = frame.height + y / 2, column = x & ~1;
        return rgb(frame.byte(y, x), frame.byte(chroma, column), frame.byte(chroma, column + 1));
    }

    static __device__ bool four(const Frame &frame, int y, int x, u32 (&out)[3]) {
        u32 luma[1], chroma[2];
        if (!frame.words(y, x, luma) || !frame.words(frame.height + y / 2, x & ~1, chroma)) return false;
        // From an odd column on, the first pair of chroma serves one pixel, not two.
        const bool is_odd = x & 1;
        Rgb pixels[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int even = i & ~1, odd = (i + 1) & ~1;
            const int cb = is_odd ? byte_of(chroma, odd) : byte_of(chroma, even);
            const int cr = is_odd ? byte_of(chroma, odd + 1) : byte_of(chroma, even + 1);
            pixels[i] = rgb(luma[0] >> (8 * i) & 255, cb, cr);
        }
        pack(pixels, out);
        return true;
    }
};

// The row and column of the red pixel in the 2x2 cell.
template <int RED_Y, int RED_X>
struct Bayer8 {
    static __device__ int rows(int height) { return height; }

    // The colour of the pixel in the middle of 3x3.
    static __device__ Rgb rgb(const u32 (&n)[3][3], bool is_red_row, bool is_red_column) {
        const u32 across = (n[1][0] + n[1][2] + 1) >> 1, along = (n[0][1] + n[2][1] + 1) >> 1;
        const u32 beside = (n[0][1] + n[1][0] + n[1][2] + n[2][1] + 2) >> 2;
        const u32 corners = (n[0][0] + n[0][2] + n[2][0] + n[2][2] + 2) >> 2;
        const bool is_green = is_red_row != is_red_column;
        const u32 own = is_green ? across : n[1][1], other = is_green ? along : corners;
        return {is_red_row ? own : other, is_green ? n[1][1] : beside, is_red_row ? other : own};
    }

    static __device__ Rgb at(const Frame &frame, int y, int x) {
        y = min(max(y, 1), frame.height - 2);
        x = min(max(x, 1), frame.width - 2);
        u32 around[3][3];
#pragma unroll
        for (int i = 0; i < 9; ++i) around[i / 3][i % 3] = frame.byte(y - 1 + i / 3, x - 1 + i % 3);
        return rgb(around, (y & 1) == RED_Y, (x & 1) == RED_X);
    }

    static __device__ bool four(const Frame &frame, int y, int x, u32 (&out)[3]) {
        y = min(max(y, 1), frame.height - 2);
        u32 in[3][2];
        if (x < 1 || x + 4 >= frame.width) return false;
        if (!frame.words(y - 1, x - 1, in[0]) || !frame.words(y, x - 1, in[1]) || !frame.words(y + 1, x - 1, in[2]))
            return false;
        Rgb pixels[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            u32 around[3][3];
#pragma unroll
            for (int j = 0; j < 9; ++j) around[j / 3][j % 3] = byte_of(in[j / 3], i + j % 3);
            pixels[i] = rgb(around, (y & 1) == RED_Y, ((x + i) & 1) == RED_X);
        }
        pack(pixels, out);
        return true;
    }
};

struct Tiles {
    u32 num_pixels;
    u32 tile_px, factor, shift;
    const int *origins;

    __device__ u32 rows_before(u32 number) const { return __umulhi(number, factor) >> shift; }

    // Where a pixel of the tiles lies: its column within the tile, its row and column within the endless frame.
    __device__ void locate(u32 pixel, u32 &column, int &y, int &x) const {
        const u32 row = rows_before(pixel), tile = rows_before(row);
        column = pixel - row * tile_px;
        y = __ldg(origins + 2 * tile) + static_cast<int>(row - tile * tile_px);
        x = __ldg(origins + 2 * tile + 1) + static_cast<int>(column);
    }
};

struct Resize {
    int height, width;
    const int *row_starts;
    const float *row_weights;
    int row_taps;
    const int *column_starts;
    const float *column_weights;
    int column_taps;
    int rounds_up;

    __device__ u32 level(float value) const {
        const float whole = rounds_up ? floorf(__fadd_rn(value, 0.5f)) : rintf(value);
        return static_cast<u32>(fminf(fmaxf(whole, 0.0f), 255.0f));
    }
};

__device__ inline float accumulate(float sum, float weight, float value) {
    return __fadd_rn(sum, __fmul_rn(weight, value));
}

template <class Format>
__device__ Rgb resized(const Frame &frame, const Resize &resize, int y, int x) {
    const int top = __ldg(resize.row_starts + y), left = __ldg(resize.column_starts + x);
    float red = 0, green = 0, blue = 0;
    for (int i = 0; i < resize.row_taps; ++i) {
        float row_red = 0, row_green = 0, row_blue = 0;
        for (int j = 0; j < resize.column_taps; ++j) {
            const Rgb pixel = Format::at(frame, top + i, left + j);
            const float weight = __ldg(resize.column_weights + x * resize.column_taps + j);
            row_red = accumulate(row_red, weight, pixel.red);
            row_green = accumulate(row_green, weight, pixel.green);
            row_blue = accumulate(row_blue, weight, pixel.blue);
        }
        const float weight = __ldg(resize.row_weights + y * resize.row_taps + i);
        red = accumulate(red, weight, row_red);
        green = accumulate(green, weight, row_green);
        blue = accumulate(blue, weight, row_blue);
    }
    return {resize.level(red), resize.level(green), resize.level(blue)};
}

__device__ inline void stage(u8 *staged, u32 pixel, const Rgb &rgb) {
    staged[3 * pixel] = rgb.red;
    staged[3 * pixel + 1] = rgb.green;
    staged[3 * pixel + 2] = rgb.blue;
}

// A block's pixels to the tiles, 16 bytes a thread.
__device__ inline void store(u8 *tiles, const uint4 *staged, u32 first, u32 num_pixels) {
    const u32 num_bytes = 3 * min(num_pixels - first, BLOCK_PX);
    const u32 whole = num_bytes / 16, thread = threadIdx.x;
    u8 *out = tiles + 3ULL * first;
    if (thread < whole) reinterpret_cast<uint4 *>(out)[thread] = staged[thread];
    if (thread < num_bytes % 16) out[16 * whole + thread] = reinterpret_cast<const u8 *>(staged)[16 * whole + thread];
}

template <class Format>
__device__ void cut(const Frame &frame, u8 *tiles, const Tiles &plan) {
    __shared__ uint4 staged[3 * BLOCK_PX / 16];
    const u32 first = blockIdx.x * BLOCK_PX, pixel = first + THREAD_PX * threadIdx.x;
    if (pixel < plan.num_pixels) {
        u32 column, words[3];
        int y, x;
        plan.locate(pixel, column, y, x);
        y = min(y, frame.height - 1);
        const bool is_inside = column + THREAD_PX <= plan.tile_px && x + static_cast<int>(THREAD_PX) <= frame.width;
        if (is_inside && Format::four(frame, y, x, words)) {
#pragma unroll
            for (int i = 0; i < 3; ++i) reinterpret_cast<u32 *>(staged)[3 * threadIdx.x + i] = words[i];
        } else {
#pragma unroll 1
            for (u32 i = 0; i < min(THREAD_PX, plan.num_pixels - pixel); ++i) {
                plan.locate(pixel + i, column, y, x);
                y = min(y, frame.height - 1);
                x = min(x, frame.width - 1);
                stage(reinterpret_cast<u8 *>(staged), pixel - first + i, Format::at(frame, y, x));
            }
        }
    }
    __syncthreads();
    store(tiles, staged, first, plan.num_pixels);
}

template <class Format>
__device__ void resize_and_cut(const Frame &frame, u8 *tiles, const Tiles &plan, const Resize &resize) {
    __shared__ uint4 staged[3 * BLOCK_PX / 16];
    const u32 first = blockIdx.x * BLOCK_PX;
#pragma unroll 1
    for (u32 i = threadIdx.x; i < min(plan.num_pixels - first, BLOCK_PX); i += THREADS) {
        u32 column;
        int y, x;
        plan.locate(first + i, column, y, x);
        y = min(y, resize.height - 1);
        x = min(x, resize.width - 1);
        stage(reinterpret_cast<u8 *>(staged), i, resized<Format>(frame, resize, y, x));
    }
    __syncthreads();
    store(tiles, staged, first, plan.num_pixels);
}

#define ENTRIES(NAME, ...)                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) frame_to_tiles_##NAME(                                       \
        const u8 *frame, u32 pitch, int height, int width, u8 *tiles, u32 num_pixels, u32 tile_px, u32 factor,         \
        u32 shift, const int *origins) {                                                                               \
        using Format = __VA_ARGS__;                                                                                    \
        cut<Format>({frame, pitch, height, width, Format::rows(height)}, tiles,                                        \
                    {num_pixels, tile_px, factor, shift, origins});                                                    \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) frame_to_tiles_##NAME##_scaled(                              \
        const u8 *frame, u32 pitch, int height, int width, u8 *tiles, u32 num_pixels, u32 tile_px, u32 factor,         \
        u32 shift, const int *origins, int scaled_height, int scaled_width, const int *row_starts,                     \
        const float *row_weights, int row_taps, const int *column_starts, const float *column_weights,                 \
        int column_taps, int rounds_up) {                                                                              \
        using Format = __VA_ARGS__;                                                                                    \
        resize_and_cut<Format>({frame, pitch, height, width, Format::rows(height)}, tiles,                             \
                               {num_pixels, tile_px, factor, shift, origins},                                          \
                               {scaled_height, scaled_width, row_starts, row_weights, row_taps, column_starts,         \
                                column_weights, column_taps, rounds_up});                                              \
    }

ENTRIES(rgb8, Rgb8)
ENTRIES(bgr8, Bgr8)
ENTRIES(mono8, Mono8)
ENTRIES(mono16, Mono16)
ENTRIES(nv12, Nv12)
ENTRIES(bayer_rg8, Bayer8<0, 0>)
ENTRIES(bayer_gr8, Bayer8<0, 1>)
ENTRIES(bayer_gb8, Bayer8<1, 0>)
ENTRIES(bayer_bg8, Bayer8<1, 1>)
