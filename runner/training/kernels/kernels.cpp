// Convolution, batch normalization and linear layers for one thread of a CPU. Called by functions.py through ctypes.
//
// A block holds LANES images. The same pixel of all of them is one vector (V), so that an instruction treats LANES images
// at once, and no size of an image or a kernel leaves part of a vector unused:
//
//     [block][channel][row][column][lane]           block 0: images 0 to 15, block 1: images 16 to 31, ...
//
//     channel 0, row 0:   | pixel 0 of images 0..15 | pixel 1 of images 0..15 | ...
//
// The last block may have lanes without an image. Outputs are 0 there, and gradients must be 0 there.
//
// A tile is a small rectangle of results that stays in the processor's registers while it is summed up: A results down,
// T across. Each value that is loaded then serves several multiplications.
#include <cstdint>

#if defined(__AVX512F__)
constexpr int LANES = 16, MAX_A = 6, MAX_T = 4;  // 32 registers of 16 numbers
#else
constexpr int LANES = 8, MAX_A = 4, MAX_T = 3;  // AVX2: 16 registers of 8 numbers
#endif

typedef float V __attribute__((vector_size(LANES * 4)));
typedef float Anywhere __attribute__((vector_size(LANES * 4), aligned(4)));  // a V at any address
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef int8_t Bytes __attribute__((vector_size(LANES)));

static inline V all(float value) { return value - V{}; }

static inline float sum(V v) {
    float parts[LANES];
    __builtin_memcpy(parts, &v, sizeof v);
    for (int half = LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++) parts[lane] += parts[lane + half];
    return parts[0];
}

// The lanes of a block that hold one of the n images.
static inline Ints occupied(long block, long n) {
    Ints lanes;
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = block * LANES + lane < n ? -1 : 0;
    return lanes;
}

// The size of the next tile where `left` results are left: at most `most`, and as even as possible.
static inline long part(long left, long most) {
    long tiles = (left + most - 1) / most;
    return (left + tiles - 1) / tiles;
}

// The tile of A × T results of a kind, for sizes that are known only when the program runs.
#define TILES(F, A) {F<A, 1>, F<A, 2>, F<A, 3>, F<A, 4>}
#define TILE(F, a, t) ([&] { static constexpr decltype(&F<1, 1>) all[6][4] = {TILES(F, 1), TILES(F, 2), TILES(F, 3), \
    TILES(F, 4), TILES(F, 5), TILES(F, 6)}; return all[(a) - 1][(t) - 1]; }())

// ---- what follows a convolution or a norm layer: ReLU, and maximum pooling over 2 × 2 ----

// One row of one channel; with `pool`, two rows become one. y = scale · x + shift, then the maximum, then ReLU.
// `places` says which of the 4 values the maximum is (the first one, where several are equal), or 4 where ReLU gave 0.
// A comparison with NaN is false: the conditions are written such that a NaN passes through, as in torch.
static inline void finish(const V* x, long width, bool relu, bool pool, float scale, float shift, Ints lanes, V* y,
                          Bytes* places) {
    for (long i = 0; i < (pool ? width / 2 : width); i++) {
        V best = x[pool ? 2 * i : i] * all(scale) + all(shift);
        Ints place = {};
        for (int k = 1; pool && k < 4; k++) {
            V value = x[k / 2 * width + 2 * i + k % 2] * all(scale) + all(shift);
            Ints larger = (value > best) | (value != value);
            best = larger ? value : best;
            place = larger ? Ints{} + k : place;
        }
        Ints none = (best <= V{}) & (Ints{} - relu);
        best = none ? V{} : best;
        y[i] = lanes ? best : V{};
        if (places) places[i] = __builtin_convertvector(none ? Ints{} + 4 : place, Bytes);
    }
}

// The gradient of `finish` for scale 1: each value of dy goes to its place in one or two rows g.
static inline void spread(const V* dy, const Bytes* places, long width, bool pool, V* g, long next_row) {
    for (long i = 0; i < width; i++) {
        Ints place = places ? __builtin_convertvector(places[i], Ints) : Ints{};
        for (int k = 0; k < (pool ? 4 : 1); k++)
            g[k / 2 * next_row + (pool ? 2 * i : i) + k % 2] = place == k ? dy[i] : V{};
    }
}

// ---- convolution ----

struct Convolution {
    long images, channels, rows, columns, outputs, kernel, padding, relu, pool, group;
    long blocks() const { return (images + LANES - 1) / LANES; }
    long out_rows() const { return rows + 2 * padding - kernel + 1; }
    long out_columns() const { return columns + 2 * padding - kernel + 1; }
};

// Weights by distances: from one result's channel to the next, from one summed channel to the next, and between taps.
// (A tap is one of the kernel × kernel positions of a filter.)
struct Filter {
    const float* first;
    long result, summed, tap;
};

// What a row of windows covers. Windows may reach over the edge of the images: rows `first` to `last` of the kernel and
// columns `left` to `right` hold values, the rest is 0 and is left out.
struct Cover {
    long kernel, first, last, left, right;
};

static inline Cover cover(long kernel, long edge, long row, long rows, long columns) {
    long first = edge - row, last = edge + rows - row;
    return {kernel, first > 0 ? first : 0, last < kernel ? last : kernel, edge, edge + columns};
}

// A channels of T neighbouring pixels. Column i of x is the first column of the first pixel's window.
template <int A, int T>
static void pixels(const V* x, long plane, long row, long channels, Cover c, long i, Filter w, V* y, long y_plane) {
    V sums[A][T] = {};
    long from = c.left - i - T + 1 > 0 ? c.left - i - T + 1 : 0, to = c.right - i < c.kernel ? c.right - i : c.kernel;
    for (long channel = 0; channel < channels; channel++)
        for (long k = c.first; k < c.last; k++)
            for (long j = from; j < to; j++) {
                const V* pixel = x + channel * plane + k * row + i + j;
                const float* weight = w.first + channel * w.summed + (k * c.kernel + j) * w.tap;
                for (int a = 0; a < A; a++)
                    for (int t = 0; t < T; t++) sums[a][t] += all(weight[a * w.result]) * pixel[t];
            }
    for (int a = 0; a < A; a++)
        for (int t = 0; t < T; t++) y[a * y_plane + i + t] = sums[a][t];
}

// One row of `a` channels.
static void row_of(long a, const V* x, long plane, long row, long channels, Cover c, Filter w, V* y, long y_plane,
                   long columns) {
    for (long i = 0, t; i < columns; i += t) {
        t = part(columns - i, MAX_T);
        TILE(pixels, a, t)(x, plane, row, channels, c, i, w, y, y_plane);
    }
}

// Copy a block into the middle of larger images, whose border is 0 already.
static void pad(const V* x, long channels, long rows, long columns, long padding, V* y) {
    long row = columns + 2 * padding, plane = (rows + 2 * padding) * row;
    for (long c = 0; c < channels; c++)
        for (long r = 0; r < rows; r++)
            __builtin_memcpy(y + c * plane + (r + padding) * row + padding, x + (c * rows + r) * columns, columns * sizeof(V));
}

extern "C" void convolution(const Convolution* s, const V* x, const float* w, const float* bias, V* y, Bytes* places,
                            V* scratch) {
    long row = s->columns + 2 * s->padding, plane = (s->rows + 2 * s->padding) * row, taps = s->kernel * s->kernel;
    long width = s->out_columns(), step = s->pool ? 2 : 1, out_width = width / step, out_rows = s->out_rows() / step;
    V* rows = scratch + (s->padding ? s->channels * plane : 0);
    if (s->padding) __builtin_memset(scratch, 0, s->channels * plane * sizeof(V));
    for (long b = 0; b < s->blocks(); b++) {
        const V* images = x + b * s->channels * s->rows * s->columns;
        if (s->padding) pad(images, s->channels, s->rows, s->columns, s->padding, scratch), images = scratch;
        for (long o = 0, a; o < s->outputs; o += a) {
            a = part(s->outputs - o, MAX_A);
            Filter filter = {w + o * s->channels * taps, s->channels * taps, taps, 1};
            for (long r = 0; r < out_rows; r++) {
                for (long i = 0; i < step; i++)
                    row_of(a, images + (r * step + i) * row, plane, row, s->channels,
                           cover(s->kernel, s->padding, r * step + i, s->rows, s->columns), filter, rows + i * width,
                           2 * width, width);
                for (long k = 0; k < a; k++) {
                    long at = ((b * s->outputs + o + k) * out_rows + r) * out_width;
                    finish(rows + k * 2 * width, width, s->relu, s->pool, 1, bias ? bias[o + k] : 0,
                           occupied(b, s->images), y + at, places ? places + at : nullptr);
                }
            }
        }
    }
}

// The gradients of A × T weights: A channels of the gradient g, T taps at these distances in x, summed over all pixels.
template <int A, int T>
static void weights(const V* x, const long* taps, long x_row, long x_block, const V* g, long g_plane, long g_row,
                    long g_block, long rows, long columns, long blocks, float* dw, long dw_row) {
    V sums[A][T] = {};
    for (long b = 0; b < blocks; b++)
        for (long r = 0; r < rows; r++) {
            const V *from = x + b * x_block + r * x_row, *gradient = g + b * g_block + r * g_row;
            for (long i = 0; i < columns; i++)
                for (int t = 0; t < T; t++)
                    for (int a = 0; a < A; a++) sums[a][t] += gradient[a * g_plane + i] * from[taps[t] + i];
        }
    for (int a = 0; a < A; a++)
        for (int t = 0; t < T; t++) dw[a * dw_row + t] += sum(sums[a][t]);
}

// dw and db must be 0 before; dx is null where no gradient of the input is needed. `group` blocks at a time share the
// cost of adding up lanes. The input's gradient is a convolution of the outputs', with every filter turned around.
extern "C" void convolution_backward(const Convolution* s, const V* x, const float* w, const V* dy, const Bytes* places,
                                     float* dw, float* db, V* dx, long* taps, V* scratch) {
    long k = s->kernel, count = s->channels * k * k, step = s->pool ? 2 : 1, group = s->group, size = s->rows * s->columns;
    long rows = s->out_rows() / step, columns = s->out_columns() / step;
    long x_row = s->columns + 2 * s->padding, x_plane = (s->rows + 2 * s->padding) * x_row, x_block = s->channels * x_plane;
    long edge = k - 1 - s->padding, border = dx && edge > 0 ? edge : 0, outside = border - edge;
    long g_row = s->out_columns() + 2 * border, g_plane = (s->out_rows() + 2 * border) * g_row;
    long g_block = s->outputs * g_plane;
    V *gradients = scratch, *inner = gradients + border * g_row + border, *padded = scratch + group * g_block;
    __builtin_memset(scratch, 0, group * (g_block + (s->padding ? x_block : 0)) * sizeof(V));
    for (long t = 0; t < count; t++) taps[t] = t / (k * k) * x_plane + t / k % k * x_row + t % k;
    for (long first = 0; first < s->blocks(); first += group) {
        long blocks = s->blocks() - first < group ? s->blocks() - first : group;
        const V* images = s->padding ? padded : x + first * x_block;
        for (long b = 0; b < blocks; b++) {
            if (s->padding) pad(x + (first + b) * s->channels * size, s->channels, s->rows, s->columns, s->padding, padded + b * x_block);
            for (long o = 0; o < s->outputs; o++) {
                V total = {};
                for (long r = 0; r < rows; r++) {
                    long at = (((first + b) * s->outputs + o) * rows + r) * columns;
                    V* g = inner + b * g_block + o * g_plane + r * step * g_row;
                    spread(dy + at, places ? places + at : nullptr, columns, s->pool, g, g_row);
                    for (long i = 0; i < columns * step; i++) total += g[i] + (s->pool ? g[g_row + i] : V{});
                }
                if (db) db[o] += sum(total);
            }
        }
        for (long o = 0, a; o < s->outputs; o += a) {
            a = part(s->outputs - o, MAX_A);
            for (long tap = 0, t; tap < count; tap += t) {
                t = part(count - tap, MAX_T);
                TILE(weights, a, t)(images, taps + tap, x_row, x_block, inner + o * g_plane, g_plane, g_row, g_block,
                                    rows * step, columns * step, blocks, dw + o * count + tap, count);
            }
        }
        for (long b = 0; dx && b < blocks; b++)
            for (long c = 0, a; c < s->channels; c += a) {
                a = part(s->channels - c, MAX_A);
                Filter turned = {w + c * k * k + k * k - 1, k * k, count, -1};
                for (long r = 0; r < s->rows; r++)
                    row_of(a, gradients + b * g_block + (r + outside) * g_row + outside, g_plane, g_row, s->outputs,
                           cover(k, edge, r, s->out_rows(), s->out_columns()), turned, dx + ((first + b) * s->channels + c) * size + r * s->columns, size, s->columns);
            }
    }
}

// ---- batch normalization ----

// `fixed`: mean and variance do not depend on the images, as in evaluation mode.
struct Norm {
    long images, channels, rows, columns, relu, pool, fixed;
};

// The mean and the biased variance of each channel over all images and pixels, block by block (Chan et al. 1983).
extern "C" void statistics(const Norm* s, const V* x, float* mean, float* variance) {
    long size = s->rows * s->columns;
    for (long c = 0; c < s->channels; c++) {
        double middle = 0, squares = 0, count = 0;
        for (long first = 0; first < s->images; first += LANES) {
            const V* values = x + (first / LANES * s->channels + c) * size;
            Ints lanes = occupied(first / LANES, s->images);
            double more = (s->images - first < LANES ? s->images - first : LANES) * size;
            V total = {}, spread_out = {};
            for (long i = 0; i < size; i++) total += lanes ? values[i] : V{};
            double own = sum(total) / more, apart = own - middle;
            for (long i = 0; i < size; i++) {
                V difference = lanes ? values[i] - all(own) : V{};
                spread_out += difference * difference;
            }
            squares += sum(spread_out) + apart * apart * count * more / (count + more);
            middle += apart * more / (count + more);
            count += more;
        }
        mean[c] = middle, variance[c] = squares / count;
    }
}

extern "C" void normalise(const Norm* s, const V* x, const float* scale, const float* shift, V* y, Bytes* places) {
    long step = s->pool ? 2 : 1, rows = s->rows / step, columns = s->columns / step;
    for (long at = 0; at < (s->images + LANES - 1) / LANES * s->channels; at++)
        for (long r = 0; r < rows; r++)
            finish(x + (at * s->rows + r * step) * s->columns, s->columns, s->relu, s->pool, scale[at % s->channels],
                   shift[at % s->channels], occupied(at / s->channels, s->images), y + (at * rows + r) * columns,
                   places ? places + (at * rows + r) * columns : nullptr);
}

// inverse is 1/√(variance + ε), scale is γ · inverse: dx = scale · (g − mean(g) − x̂ · mean(g · x̂)).
extern "C" void normalise_backward(const Norm* s, const V* x, const float* mean, const float* inverse, const float* scale,
                                   const V* dy, const Bytes* places, float* dgamma, float* dbeta, V* dx, V* g) {
    long step = s->pool ? 2 : 1, rows = s->rows / step, columns = s->columns / step, size = s->rows * s->columns;
    __builtin_memset(g, 0, size * sizeof(V));
    for (long c = 0; c < s->channels; c++) {
        double beta = 0, gamma_sum = 0, count = double(s->images) * size;
        for (int pass = 0; pass < 2; pass++)
            for (long first = 0; first < s->images; first += LANES) {
                long at = first / LANES * s->channels + c;
                const V *values = x + at * size, *from = dy + at * rows * columns;
                for (long r = 0; r < rows; r++)
                    spread(from + r * columns, places ? places + (at * rows + r) * columns : nullptr, columns, s->pool,
                           g + r * step * s->columns, s->columns);
                V total = {}, products = {};
                V mean_g = all(s->fixed ? 0 : beta / count), mean_product = all(s->fixed ? 0 : gamma_sum / count);
                Ints lanes = occupied(first / LANES, s->images);
                for (long i = 0; i < size; i++) {
                    V standard = (values[i] - all(mean[c])) * all(inverse[c]);
                    if (pass == 0)
                        total += g[i], products += g[i] * standard;
                    else
                        dx[at * size + i] = lanes ? (g[i] - mean_g - standard * mean_product) * all(scale[c]) : V{};
                }
                if (pass == 0) beta += sum(total), gamma_sum += sum(products);
            }
        dgamma[c] = gamma_sum, dbeta[c] = beta;
    }
}

// ---- images, one after the other, to blocks and back ----

extern "C" void to_blocks(const float* x, long images, long size, V* y) {
    for (long at = 0; at < (images + LANES - 1) / LANES * size; at++)
        for (long lane = 0, first = at / size * LANES; lane < LANES; lane++)
            y[at][lane] = first + lane < images ? x[(first + lane) * size + at % size] : 0;
}

extern "C" void from_blocks(const V* x, long images, long size, float* y) {
    for (long image = 0; image < images; image++)
        for (long i = 0; i < size; i++) y[image * size + i] = x[image / LANES * size + i][image % LANES];
}

extern "C" long lanes() { return LANES; }
