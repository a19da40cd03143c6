// Enough of CUDA to run a kernel on a CPU, as it is written: one fibre per thread, blocks one after another.
//
// Barriers and warp collectives suspend a fibre until all its partners have come; a barrier that some threads of a
// block never reach, or a collective that some lanes of a warp never reach, is an error. So is a read through `__ldg`
// beside the buffers that were passed, or one that is not aligned. A warp runs until it can go no further, warps and
// lanes upwards and downwards by turns from block to block, so that a missing barrier shows. Shared memory keeps what
// the block before left there, as on a GPU.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)

struct Index3 {
    unsigned x, y, z;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

static Index3 threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

enum class State { ready, at_barrier, at_collective, done };

struct Fibre {
    ucontext_t context;
    std::vector<char> stack;
    State state;
    unsigned num_collectives;
};

constexpr unsigned WARP = 32;
constexpr size_t STACK_BYTES = 64 << 10;

static std::vector<Fibre> fibres;
static std::vector<unsigned> lanes;  // What each thread brought to its last two collectives.
static ucontext_t scheduler;
static unsigned current;
static void (*body)(void **);
static void **body_arguments;
static unsigned num_blocks;
static const uintptr_t *readable;  // First and last byte plus one of each buffer.
static int num_readable;
static bool has_misread;

inline void check_read(const void *place, size_t size) {
    const uintptr_t first = reinterpret_cast<uintptr_t>(place);
    bool is_inside = false;
    for (int i = 0; i < num_readable; ++i)
        is_inside = is_inside || (first >= readable[2 * i] && first + size <= readable[2 * i + 1]);
    has_misread = has_misread || !is_inside || first % size;
}

inline void suspend(State state) {
    Fibre &fibre = fibres[current];
    fibre.state = state;
    swapcontext(&fibre.context, &scheduler);
}

inline void run_body() {
    body(body_arguments);
    fibres[current].state = State::done;
}

// All lanes' values of one collective. Two slots do: no lane can be two collectives ahead of another.
inline const unsigned *collected(unsigned value) {
    const unsigned slot = fibres[current].num_collectives++ % 2 * static_cast<unsigned>(fibres.size());
    lanes[slot + current] = value;
    suspend(State::at_collective);
    return &lanes[slot + current / WARP * WARP];
}

inline bool release(unsigned first, unsigned count, State state) {
    for (unsigned i = first; i < first + count; ++i)
        if (fibres[i].state != state) return false;
    for (unsigned i = first; i < first + count; ++i) fibres[i].state = State::ready;
    return true;
}

// Run a warp's lanes until each waits for the block or is done; false if that is how they were.
inline bool run_warp(unsigned first, bool is_downwards) {
    bool has_run = false;
    do {
        for (unsigned i = 0; i < WARP; ++i) {
            current = first + (is_downwards ? WARP - 1 - i : i);
            if (fibres[current].state != State::ready) continue;
            threadIdx = {current, 0, 0};
            swapcontext(&scheduler, &fibres[current].context);
            has_run = true;
        }
    } while (release(first, WARP, State::at_collective));
    return has_run;
}

inline void start(Fibre &fibre) {
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.data();
    fibre.context.uc_stack.ss_size = fibre.stack.size();
    fibre.context.uc_link = &scheduler;
    makecontext(&fibre.context, run_body, 0);
    fibre.state = State::ready;
    fibre.num_collectives = 0;
}

// False where threads wait for others that do not come.
inline bool run_block(bool is_downwards) {
    const unsigned count = static_cast<unsigned>(fibres.size());
    for (Fibre &fibre : fibres) start(fibre);
    do {
        bool has_run = false;
        for (unsigned first = 0; first < count; first += WARP)
            has_run = run_warp(is_downwards ? count - WARP - first : first, is_downwards) || has_run;
        if (!has_run) return false;
    } while (release(0, count, State::at_barrier));
    for (const Fibre &fibre : fibres)
        if (fibre.state != State::done) return false;
    return true;
}

template <class... Arguments, size_t... I>
void call(void (*kernel)(Arguments...), void **arguments, std::index_sequence<I...>) {
    kernel(*static_cast<Arguments *>(arguments[I])...);
}

// Bytes of each argument, to hold what is passed to what the kernel takes.
template <class... Arguments>
bool takes(void (*)(Arguments...), const int *sizes, int count) {
    const int expected[] = {static_cast<int>(sizeof(Arguments))...};
    return count == sizeof...(Arguments) && !std::memcmp(sizes, expected, sizeof(expected));
}

template <class... Arguments>
std::make_index_sequence<sizeof...(Arguments)> indices(void (*)(Arguments...)) {
    return {};
}

enum Status { OK, WRONG_ARGUMENTS, STUCK, MISREAD };

inline Status launch(void (*kernel)(void **), const unsigned *grid, const unsigned *block, void **arguments) {
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    fibres.resize(block[0] * block[1] * block[2]);
    for (Fibre &fibre : fibres) fibre.stack.resize(STACK_BYTES);
    lanes.assign(2 * fibres.size(), 0);
    body = kernel;
    body_arguments = arguments;
    has_misread = false;
    for (unsigned z = 0; z < grid[2]; ++z)
        for (unsigned y = 0; y < grid[1]; ++y)
            for (unsigned x = 0; x < grid[0]; ++x) {
                blockIdx = {x, y, z};
                if (!run_block(num_blocks++ % 2)) return STUCK;
            }
    return has_misread ? MISREAD : OK;
}

}  // namespace shim

// Makes `run_NAME(grid, block, arguments, sizes, count, buffers, num_buffers)` for one kernel.
#define RUNNABLE(NAME)                                                                                                 \
    extern "C" int run_##NAME(const unsigned *grid, const unsigned *block, void **arguments, const int *sizes,         \
                              int count, const uintptr_t *buffers, int num_buffers) {                                  \
        if (!shim::takes(NAME, sizes, count)) return shim::WRONG_ARGUMENTS;                                            \
        shim::readable = buffers;                                                                                      \
        shim::num_readable = num_buffers;                                                                              \
        return shim::launch([](void **values) { shim::call(NAME, values, decltype(shim::indices(NAME)){}); }, grid,    \
                            block, arguments);                                                                         \
    }

inline void __syncthreads() { shim::suspend(shim::State::at_barrier); }

inline unsigned __ballot_sync(unsigned, bool predicate) {
    const unsigned *values = shim::collected(predicate);
    unsigned ballot = 0;
    for (unsigned lane = 0; lane < shim::WARP; ++lane) ballot |= values[lane] << lane;
    return ballot;
}

inline unsigned __shfl_xor_sync(unsigned, unsigned value, unsigned mask) {
    const unsigned lane = shim::current % shim::WARP;
    return shim::collected(value)[lane ^ mask];
}

inline unsigned __reduce_max_sync(unsigned, unsigned value) {
    const unsigned *values = shim::collected(value);
    unsigned most = 0;
    for (unsigned lane = 0; lane < shim::WARP; ++lane) most = values[lane] > most ? values[lane] : most;
    return most;
}

template <class T>
T __ldg(const T *place) {
    shim::check_read(place, sizeof(T));
    return *place;
}
template <class T>
T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
    return a < b ? b : a;
}
template <class T>
T atomicAdd(T *place, T value) {
    const T old = *place;
    *place = old + value;
    return old;
}
template <class T>
T atomicMax(T *place, T value) {
    const T old = *place;
    *place = max(old, value);
    return old;
}
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<uint64_t>(a) * b >> 32; }
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return (static_cast<uint64_t>(high) << 32 | low) >> (shift & 31);
}
inline unsigned __brev(unsigned bits) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; ++i) reversed |= (bits >> i & 1) << (31 - i);
    return reversed;
}
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
    unsigned picked = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned place = selector >> (4 * i) & 7;
        picked |= static_cast<unsigned>(bytes >> (8 * place) & 255) << (8 * i);
    }
    return picked;
}
