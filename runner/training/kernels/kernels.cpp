// Convolution and batch norm, with the ReLU and the 2×2 maximum pooling after them, for one thread of a CPU. blocks.py
// calls these functions through ctypes.
//
// Images are kept in blocks of LANES. The same pixel of all images of a block is one vector V, so that one instruction
// treats LANES images at once, whatever the size of an image or a filter is:
//
//     float x[blocks][channels][rows][columns][LANES]
//
//     block 0, channel 0, row 0:   | pixel 0 of images 0..15 | pixel 1 of images 0..15 | ...   one |...| is one V
//
// In the last block, lanes can be without an image. Inputs must be finite there, and gradients must be 0.
//
// A tile is A outputs × T neighbouring pixels (or taps). Its sums stay in registers, so that each value that is loaded
// serves several multiplications. The compiler makes one fused multiply-add of `sum += a * b`. A tap is one of the
// filter × filter positions of a filter.
#include <stdint.h>

#include <algorithm>

#if defined(__AVX512F__)  // 32 registers of 16 numbers
constexpr long LANES = 16, MAX_A = 6, MAX_T = 4;
#else  // AVX2: 16 registers of 8 numbers (ARM: 32 of 4)
constexpr long LANES = 8, MAX_A = 4, MAX_T = 3;
#endif
static_assert(MAX_A <= 6 && MAX_T <= 4, "TILE has functions up to this size, and blocks.py makes room for 6 rows");

typedef float V __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef int8_t Bytes __attribute__((vector_size(LANES), aligned(1)));

static inline V &at(float *x, long i) { return ((V *)x)[i]; }
static inline const V &at(const float *x, long i) { return ((const V *)x)[i]; }

static inline float sum(V v) {
    typedef float Quarter __attribute__((vector_size(LANES)));
    Quarter quarters[4];
    __builtin_memcpy(quarters, &v, sizeof v);
    Quarter four = quarters[0] + quarters[2] + (quarters[1] + quarters[3]);
    float total = 0;
    for (long i = 0; i < LANES / 4; i++) total += four[i];
    return total;
}

static inline Ints occupied(long block, long images) {  // the lanes of a block that hold one of so many images
    Ints lanes;
    for (long lane = 0; lane < LANES; lane++) lanes[lane] = block * LANES + lane < images ? -1 : 0;
    return lanes;
}

static inline long part(long left, long largest) {  // the size of the next tile: tiles of a row are about equal
    long tiles = (left + largest - 1) / largest;
    return (left + tiles - 1) / tiles;
}

// TILE(f, a, t) is f<a, t>, for sizes that are known only when the program runs.
#define TILES(F, A) {F<A, 1>, F<A, 2>, F<A, 3>, F<A, 4>}
#define TILE(F, a, t) ([&] { static constexpr decltype(&F<1, 1>) sizes[6][4] = {TILES(F, 1), TILES(F, 2), TILES(F, 3), \
    TILES(F, 4), TILES(F, 5), TILES(F, 6)}; return sizes[(a) - 1][(t) - 1]; }())

struct Sizes {
    long images, channels, rows, columns, outputs, filter, padding, relu, pool, group, fixed;
    long stride() const { return pool ? 2 : 1; }
    long blocks() const { return (images + LANES - 1) / LANES; }
};

// One row of one channel; with `pool`, two rows become one: y = scale · x + shift, then the maximum, then ReLU.
// `places` says which of the 4 values the maximum is (of equal ones the first), and 4 where ReLU gives 0.
// Conditions are written so that NaN, which is neither larger nor smaller than anything, goes through as in torch.
static inline void finish(const Sizes *s, const float *x, long width, float scale, float shift, Ints lanes, float *y,
                          Bytes *places, long to) {
    for (long i = 0; i < width / s->stride(); i++) {
        V best = at(x, s->stride() * i) * scale + shift;
        Ints place = {};
        for (int k = 1; s->pool && k < 4; k++) {
            V value = at(x, k / 2 * width + 2 * i + k % 2) * scale + shift;
            Ints larger = (value > best) | (value != value);
            best = larger ? value : best;
            place = larger ? Ints{} + k : place;
        }
        if (s->relu) {
            Ints none = best <= V{};
            best = none ? V{} : best;
            place = none ? Ints{} + 4 : place;
        }
        at(y, to + i) = lanes ? best : V{};
        if (places) places[to + i] = __builtin_convertvector(place, Bytes);
    }
}

// Write one row of dy to its places in g. With `pool` this fills two rows of g, `next` pixels apart.
static inline void spread(const Sizes *s, const float *dy, const Bytes *places, long from, long width, float *g, long next) {
    for (long i = 0; i < width; i++) {
        Ints place = places ? __builtin_convertvector(places[from + i], Ints) : Ints{};
        for (int k = 0; k < s->stride() * s->stride(); k++)
            at(g, k / 2 * next + s->stride() * i + k % 2) = place == k ? at(dy, from + i) : V{};
    }
}

// Weights, and how far apart in memory two results, two channels that are summed, and two taps are.
struct Weights {
    const float *first;
    long result, summed, tap;
};

// The part of a row of windows that lies on the image: rows `first` to `last` of the filter, and columns `left` to
// `right`. Everything else is 0 and is left out.
struct Cover {
    long filter, first, last, left, right;
};

static inline Cover cover(long filter, long edge, long row, long rows, long columns) {
    return {filter, std::max(0L, edge - row), std::min(filter, edge + rows - row), edge, edge + columns};
}

// y[a][t] = Σ w[a][channel][k][j] · x[channel][k][i + j + t], for A results and T neighbouring pixels (or columns).
template <int A, int T>
static void products(const float *x, long plane, long row, long channels, Cover c, long i, Weights w, float *y, long y_plane) {
    V sums[A][T] = {};
    long start = std::max(0L, c.left - i - T + 1), end = std::min(c.filter, c.right - i);
    for (long channel = 0; channel < channels; channel++)
        for (long k = c.first; k < c.last; k++)
            for (long j = start; j < end; j++) {
                const float *pixel = x + channel * plane + (k * row + i + j) * LANES;
                const float *weight = w.first + channel * w.summed + (k * c.filter + j) * w.tap;
                for (int a = 0; a < A; a++)
                    for (int t = 0; t < T; t++) sums[a][t] += weight[a * w.result] * at(pixel, t);
            }
    for (int a = 0; a < A; a++)
        for (int t = 0; t < T; t++) at(y + a * y_plane, i + t) = sums[a][t];
}

static void row_of(long a, const float *x, long plane, long row, long channels, Cover c, Weights w, float *y, long y_plane,
                   long columns) {
    for (long i = 0, t; i < columns; i += t) {
        t = part(columns - i, MAX_T);
        TILE(products, a, t)(x, plane, row, channels, c, i, w, y, y_plane);
    }
}

// A block with a border of 0: x itself if there is no padding; otherwise a copy in the middle of y, whose border is 0.
static const float *pad(const Sizes *s, const float *x, float *y) {
    long row = s->columns + 2 * s->padding, edge = s->padding * (row + 1);
    for (long c = 0; s->padding && c < s->channels; c++)
        for (long r = 0; r < s->rows; r++)
            __builtin_memcpy(y + ((c * (s->rows + 2 * s->padding) + r) * row + edge) * LANES,
                             x + (c * s->rows + r) * s->columns * LANES, s->columns * sizeof(V));
    return s->padding ? y : x;
}

extern "C" void convolution(const Sizes *s, const float *x, const float *w, const float *bias, float *y, Bytes *places,
                            float *scratch) {
    long k = s->filter, row = s->columns + 2 * s->padding, plane = (s->rows + 2 * s->padding) * row, count = s->channels * k * k;
    long width = row - k + 1, rows = (plane / row - k + 1) / s->stride(), columns = width / s->stride();
    float *padded = scratch + 2 * MAX_A * width * LANES;
    if (s->padding) __builtin_memset(padded, 0, s->channels * plane * sizeof(V));
    for (long b = 0; b < s->blocks(); b++) {
        const float *images = pad(s, x + b * s->channels * s->rows * s->columns * LANES, padded);
        for (long o = 0, a; o < s->outputs; o += a) {
            a = part(s->outputs - o, MAX_A);
            for (long r = 0; r < rows; r++) {
                for (long i = 0; i < s->stride(); i++)
                    row_of(a, images + (r * s->stride() + i) * row * LANES, plane * LANES, row, s->channels,
                           cover(k, s->padding, r * s->stride() + i, s->rows, s->columns), {w + o * count, count, k * k, 1},
                           scratch + i * width * LANES, 2 * width * LANES, width);
                for (long i = 0; i < a; i++)
                    finish(s, scratch + i * 2 * width * LANES, width, 1, bias ? bias[o + i] : 0, occupied(b, s->images), y,
                           places, ((b * s->outputs + o + i) * rows + r) * columns);
            }
        }
    }
}

// dw[a][t] += Σ g[a][pixel] · x[taps[t] + pixel], for A outputs and T taps, over all pixels of some blocks.
template <int A, int T>
static void weights(const float *x, const long *taps, long x_row, long x_block, const float *g, long g_plane, long g_row,
                    long g_block, long rows, long columns, long blocks, float *dw, long dw_row) {
    V sums[A][T] = {};
    for (long b = 0; b < blocks; b++)
        for (long r = 0; r < rows; r++) {
            const float *image = x + (b * x_block + r * x_row) * LANES, *gradient = g + (b * g_block + r * g_row) * LANES;
            for (long i = 0; i < columns; i++)
                for (int t = 0; t < T; t++)
                    for (int a = 0; a < A; a++) sums[a][t] += at(gradient, a * g_plane + i) * at(image, taps[t] + i);
        }
    for (int a = 0; a < A; a++)
        for (int t = 0; t < T; t++) dw[a * dw_row + t] += sum(sums[a][t]);
}

// dw and db are 0 before the call. If dx is null, it is not computed. dx is a convolution of g with reversed filters, and
// g is dy at its places, with a border of 0. The lanes of `group` blocks are summed together, because that takes time.
extern "C" void convolution_backward(const Sizes *s, const float *x, const float *w, const float *dy, const Bytes *places,
                                     float *dw, float *db, float *dx, float *scratch) {
    long k = s->filter, count = s->channels * k * k, size = s->rows * s->columns;
    long x_row = s->columns + 2 * s->padding, x_plane = (s->rows + 2 * s->padding) * x_row, x_block = s->channels * x_plane;
    long height = x_plane / x_row - k + 1, width = x_row - k + 1, rows = height / s->stride(), columns = width / s->stride();
    long edge = k - 1 - s->padding, border = dx ? std::max(0L, edge) : 0, g_row = width + 2 * border;
    long g_plane = (height + 2 * border) * g_row, g_block = s->outputs * g_plane;
    float *inner = scratch + border * (g_row + 1) * LANES, *padded = scratch + s->group * g_block * LANES;
    __builtin_memset(scratch, 0, s->group * (g_block + (s->padding ? x_block : 0)) * sizeof(V));
    for (long first = 0; first < s->blocks(); first += s->group) {
        long blocks = std::min(s->group, s->blocks() - first);
        const float *images = s->padding ? padded : x + first * x_block * LANES;
        for (long b = 0; b < blocks; b++) {
            pad(s, x + (first + b) * s->channels * size * LANES, padded + b * x_block * LANES);
            for (long o = 0; o < s->outputs; o++) {
                V total = {};
                for (long r = 0; r < rows; r++) {
                    long pooled = (((first + b) * s->outputs + o) * rows + r) * columns;
                    float *g = inner + (b * g_block + o * g_plane + r * s->stride() * g_row) * LANES;
                    spread(s, dy, places, pooled, columns, g, g_row);
                    for (long i = 0; i < columns * s->stride(); i++) total += at(g, i) + (s->pool ? at(g, g_row + i) : V{});
                }
                if (db) db[o] += sum(total);
            }
        }
        for (long o = 0, a; o < s->outputs; o += a) {
            a = part(s->outputs - o, MAX_A);
            for (long tap = 0, t; tap < count; tap += t) {
                t = part(count - tap, MAX_T);
                long taps[MAX_T];
                for (long i = 0, n = tap; i < t; i++, n++) taps[i] = n / (k * k) * x_plane + n / k % k * x_row + n % k;
                TILE(weights, a, t)(images, taps, x_row, x_block, inner + o * g_plane * LANES, g_plane, g_row, g_block,
                                    rows * s->stride(), columns * s->stride(), blocks, dw + o * count + tap, count);
            }
        }
        for (long b = 0; dx && b < blocks; b++)
            for (long c = 0, a; c < s->channels; c += a) {
                a = part(s->channels - c, MAX_A);
                for (long r = 0; r < s->rows; r++)
                    row_of(a, scratch + (b * g_block + (r + border - edge) * g_row + border - edge) * LANES, g_plane * LANES,
                           g_row, s->outputs, cover(k, edge, r, height, width), {w + (c + 1) * k * k - 1, k * k, count, -1},
                           dx + (((first + b) * s->channels + c) * size + r * s->columns) * LANES, size * LANES, s->columns);
            }
    }
}

// The mean and the biased variance of each channel over all images and pixels, block by block (Chan et al. 1983).
extern "C" void statistics(const Sizes *s, const float *x, float *mean, float *variance) {
    long size = s->rows * s->columns;
    for (long c = 0; c < s->channels; c++) {
        double middle = 0, squares = 0, count = 0;
        for (long b = 0; b < s->blocks(); b++) {
            const float *values = x + (b * s->channels + c) * size * LANES;
            double more = std::min(LANES, s->images - b * LANES) * size;
            V total = {}, squared = {};
            for (long i = 0; i < size; i++) total += occupied(b, s->images) ? at(values, i) : V{};
            double own = sum(total) / more, apart = own - middle;
            for (long i = 0; i < size; i++) {
                V difference = occupied(b, s->images) ? at(values, i) - float(own) : V{};
                squared += difference * difference;
            }
            squares += sum(squared) + apart * apart * count * more / (count + more);
            middle += apart * more / (count + more);
            count += more;
        }
        mean[c] = middle;
        variance[c] = squares / count;
    }
}

extern "C" void normalise(const Sizes *s, const float *x, const float *scale, const float *shift, float *y, Bytes *places) {
    long rows = s->rows / s->stride(), columns = s->columns / s->stride();
    for (long c = 0; c < s->blocks() * s->channels; c++)
        for (long r = 0; r < rows; r++)
            finish(s, x + (c * s->rows + r * s->stride()) * s->columns * LANES, s->columns, scale[c % s->channels],
                   shift[c % s->channels], occupied(c / s->channels, s->images), y, places, (c * rows + r) * columns);
}

// dx = scale · (g − mean(g) − x̂ · mean(g · x̂)), with x̂ = (x − mean) · inverse. With `fixed`, as in evaluation, mean
// and inverse do not depend on x, and dx = scale · g. The last argument g is scratch for one channel of a block.
extern "C" void normalise_backward(const Sizes *s, const float *x, const float *mean, const float *inverse,
                                   const float *scale, const float *dy, const Bytes *places, float *dgamma, float *dbeta,
                                   float *dx, float *g) {
    long rows = s->rows / s->stride(), columns = s->columns / s->stride(), size = s->rows * s->columns;
    double count = double(s->images) * size;
    __builtin_memset(g, 0, size * sizeof(V));
    for (long c = 0; c < s->channels; c++) {
        double gradients = 0, with_x = 0;
        for (int pass = 0; pass < 2; pass++)  // first the sums, then dx
            for (long b = 0; b < s->blocks(); b++) {
                long channel = b * s->channels + c;
                for (long r = 0; r < rows; r++)
                    spread(s, dy, places, (channel * rows + r) * columns, columns, g + r * s->stride() * s->columns * LANES,
                           s->columns);
                V total = {}, total_x = {};
                float mean_g = s->fixed ? 0 : gradients / count, mean_x = s->fixed ? 0 : with_x / count;
                for (long i = 0; i < size; i++) {
                    V standard = (at(x, channel * size + i) - mean[c]) * inverse[c];
                    if (pass == 0) {
                        total += at(g, i);
                        total_x += at(g, i) * standard;
                    } else {
                        V result = (at(g, i) - mean_g - standard * mean_x) * scale[c];
                        at(dx, channel * size + i) = occupied(b, s->images) ? result : V{};
                    }
                }
                if (pass == 0) {
                    gradients += sum(total);
                    with_x += sum(total_x);
                }
            }
        dgamma[c] = with_x;
        dbeta[c] = gradients;
    }
}

extern "C" long lanes() { return LANES; }
extern "C" long version() { return 2; }
