// Convolution and batch norm, with the ReLU and the 2×2 maximum pooling after them, for one thread of a CPU. blocks.py
// calls these functions through ctypes.
//
// Images are kept in blocks of LANES. The same pixel of all images of a block is one vector V, so that one instruction
// treats LANES images at once, whatever the size of an image or a kernel is:
//
//     float x[blocks][channels][rows][columns][LANES]
//
//     block 0, channel 0, row 0:   | pixel 0 of images 0..15 | pixel 1 of images 0..15 | ...   one |...| is one V
//
// In the last block, lanes can be without an image. Outputs are 0 there, and gradients must be 0 there.
//
// A tile is a small rectangle of results, A down and T across, that stays in registers while it is summed up. So each
// value that is loaded serves several multiplications. The compiler makes one fused multiply-add of `sum += a * b`.
#include <stdint.h>

#if defined(__AVX512F__)  // 32 registers of 16 numbers
constexpr long LANES = 16, MAX_A = 6, MAX_T = 4;
#else  // AVX2: 16 registers of 8 numbers
constexpr long LANES = 8, MAX_A = 4, MAX_T = 3;
#endif

typedef float V __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef int8_t Bytes __attribute__((vector_size(LANES), aligned(1)));

static inline V &at(float *x, long i) { return ((V *)x)[i]; }
static inline const V &at(const float *x, long i) { return ((const V *)x)[i]; }
static inline const Bytes *from(const Bytes *places, long i) { return places ? places + i : nullptr; }
static inline V all(float value) { return value - V{}; }
static inline long least(long a, long b) { return a < b ? a : b; }
static inline long most(long a, long b) { return a > b ? a : b; }
static inline long blocks_of(long images) { return (images + LANES - 1) / LANES; }

static inline float sum(V v) {  // add the halves, then the quarters, ...
    typedef float Half __attribute__((vector_size(LANES * 2)));
    typedef float Quarter __attribute__((vector_size(LANES)));
    Half halves[2];
    Quarter quarters[2];
    __builtin_memcpy(halves, &v, sizeof v);
    halves[0] += halves[1];
    __builtin_memcpy(quarters, halves, sizeof quarters);
    quarters[0] += quarters[1];
    float total = 0;
    for (long i = 0; i < LANES / 4; i++) total += quarters[0][i];
    return total;
}

static inline Ints occupied(long block, long images) {  // the lanes of a block that hold one of so many images
    Ints lanes;
    for (long lane = 0; lane < LANES; lane++) lanes[lane] = block * LANES + lane < images ? -1 : 0;
    return lanes;
}

static inline long part(long left, long largest) {  // the size of the next tile, so that all have nearly the same size
    long tiles = (left + largest - 1) / largest;
    return (left + tiles - 1) / tiles;
}

// TILE(f, a, t) is f<a, t>, for sizes that are known only when the program runs.
#define TILES(F, A) {F<A, 1>, F<A, 2>, F<A, 3>, F<A, 4>}
#define TILE(F, a, t) ([&] { static constexpr decltype(&F<1, 1>) sizes[6][4] = {TILES(F, 1), TILES(F, 2), TILES(F, 3), \
    TILES(F, 4), TILES(F, 5), TILES(F, 6)}; return sizes[(a) - 1][(t) - 1]; }())

struct Layer {
    long images, channels, rows, columns, outputs, kernel, padding, relu, pool, group, fixed;
    long step() const { return pool ? 2 : 1; }
};

// One row of one channel; with `pool`, two rows become one: y = scale · x + shift, then the maximum, then ReLU.
// `places` says which of the 4 values the maximum is (of equal ones the first), and 4 where ReLU gives 0.
// Conditions are written so that NaN, which is neither larger nor smaller than anything, goes through as in torch.
static inline void finish(const Layer *s, const float *x, long width, float scale, float shift, Ints lanes, float *y,
                          Bytes *places) {
    for (long i = 0; i < width / s->step(); i++) {
        V best = at(x, s->step() * i) * all(scale) + all(shift);
        Ints place = {};
        for (int k = 1; s->pool && k < 4; k++) {
            V value = at(x, k / 2 * width + 2 * i + k % 2) * all(scale) + all(shift);
            Ints larger = (value > best) | (value != value);
            best = larger ? value : best;
            place = larger ? Ints{} + k : place;
        }
        if (s->relu) {
            Ints none = best <= V{};
            best = none ? V{} : best;
            place = none ? Ints{} + 4 : place;
        }
        at(y, i) = lanes ? best : V{};
        if (places) places[i] = __builtin_convertvector(place, Bytes);
    }
}

// Put the gradients of `finish`, one row, at their places in one or two rows of g, whose distance is `next`.
static inline void spread(const Layer *s, const float *dy, const Bytes *places, long width, float *g, long next) {
    for (long i = 0; i < width; i++) {
        Ints place = places ? __builtin_convertvector(places[i], Ints) : Ints{};
        for (int k = 0; k < s->step() * s->step(); k++)
            at(g, k / 2 * next + s->step() * i + k % 2) = place == k ? at(dy, i) : V{};
    }
}

// Weights by distances: between two results, between two channels that are summed, between two taps of a filter.
struct Weights {
    const float *first;
    long result, summed, tap;
};

// What one row of windows covers: rows `first` to `last` and columns `left` to `right` of images; all else is 0.
struct Cover {
    long kernel, first, last, left, right;
};

static inline Cover cover(long kernel, long edge, long row, long rows, long columns) {
    return {kernel, most(0, edge - row), least(kernel, edge + rows - row), edge, edge + columns};
}

// y[a][t] = Σ w[a][channel][k][j] · x[channel][k][i + j + t], for A results and T neighbouring pixels (or columns).
template <int A, int T>
static void products(const float *x, long plane, long row, long channels, Cover c, long i, Weights w, float *y, long y_plane) {
    V sums[A][T] = {};
    long start = most(0, c.left - i - T + 1), end = least(c.kernel, c.right - i);
    for (long channel = 0; channel < channels; channel++)
        for (long k = c.first; k < c.last; k++)
            for (long j = start; j < end; j++) {
                const float *pixel = x + channel * plane + (k * row + i + j) * LANES;
                const float *weight = w.first + channel * w.summed + (k * c.kernel + j) * w.tap;
                for (int a = 0; a < A; a++)
                    for (int t = 0; t < T; t++) sums[a][t] += all(weight[a * w.result]) * at(pixel, t);
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

static void pad(const Layer *s, const float *x, float *y) {  // copy a block into the middle of y, whose border is 0
    long row = s->columns + 2 * s->padding;
    for (long c = 0; c < s->channels; c++)
        for (long r = 0; r < s->rows; r++)
            __builtin_memcpy(y + ((c * (s->rows + 2 * s->padding) + r + s->padding) * row + s->padding) * LANES,
                             x + (c * s->rows + r) * s->columns * LANES, s->columns * sizeof(V));
}

extern "C" void convolution(const Layer *s, const float *x, const float *w, const float *bias, float *y, Bytes *places,
                            float *scratch) {
    long k = s->kernel, row = s->columns + 2 * s->padding, plane = (s->rows + 2 * s->padding) * row, count = s->channels * k * k;
    long width = row - k + 1, rows = (plane / row - k + 1) / s->step(), columns = width / s->step();
    float *sums = scratch + (s->padding ? s->channels * plane * LANES : 0);
    if (s->padding) __builtin_memset(scratch, 0, s->channels * plane * sizeof(V));
    for (long b = 0; b < blocks_of(s->images); b++) {
        const float *images = x + b * s->channels * s->rows * s->columns * LANES;
        if (s->padding) {
            pad(s, images, scratch);
            images = scratch;
        }
        for (long o = 0, a; o < s->outputs; o += a) {
            a = part(s->outputs - o, MAX_A);
            for (long r = 0; r < rows; r++) {
                for (long i = 0; i < s->step(); i++) {
                    long top = r * s->step() + i;
                    row_of(a, images + top * row * LANES, plane * LANES, row, s->channels,
                           cover(k, s->padding, top, s->rows, s->columns), {w + o * count, count, k * k, 1},
                           sums + i * width * LANES, 2 * width * LANES, width);
                }
                for (long i = 0; i < a; i++) {
                    long to = ((b * s->outputs + o + i) * rows + r) * columns;
                    finish(s, sums + i * 2 * width * LANES, width, 1, bias ? bias[o + i] : 0, occupied(b, s->images),
                           y + to * LANES, (Bytes *)from(places, to));
                }
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

// dw and db are 0 before. Without dx, the input's gradient is left out. It is a convolution of g, the outputs' gradient
// with a border of 0, with every filter turned around. `group` blocks at a time share the cost of adding up lanes.
extern "C" void convolution_backward(const Layer *s, const float *x, const float *w, const float *dy, const Bytes *places,
                                     float *dw, float *db, float *dx, long *taps, float *scratch) {
    long k = s->kernel, count = s->channels * k * k, size = s->rows * s->columns;
    long x_row = s->columns + 2 * s->padding, x_plane = (s->rows + 2 * s->padding) * x_row, x_block = s->channels * x_plane;
    long height = x_plane / x_row - k + 1, width = x_row - k + 1, rows = height / s->step(), columns = width / s->step();
    long edge = k - 1 - s->padding, border = dx ? most(0, edge) : 0, g_row = width + 2 * border;
    long g_plane = (height + 2 * border) * g_row, g_block = s->outputs * g_plane;
    float *inner = scratch + border * (g_row + 1) * LANES, *padded = scratch + s->group * g_block * LANES;
    __builtin_memset(scratch, 0, s->group * (g_block + (s->padding ? x_block : 0)) * sizeof(V));
    for (long t = 0; t < count; t++) taps[t] = t / (k * k) * x_plane + t / k % k * x_row + t % k;
    for (long first = 0; first < blocks_of(s->images); first += s->group) {
        long blocks = least(s->group, blocks_of(s->images) - first);
        const float *images = s->padding ? padded : x + first * x_block * LANES;
        for (long b = 0; b < blocks; b++) {
            if (s->padding) pad(s, x + (first + b) * s->channels * size * LANES, padded + b * x_block * LANES);
            for (long o = 0; o < s->outputs; o++) {
                V total = {};
                for (long r = 0; r < rows; r++) {
                    long pooled = (((first + b) * s->outputs + o) * rows + r) * columns;
                    float *g = inner + (b * g_block + o * g_plane + r * s->step() * g_row) * LANES;
                    spread(s, dy + pooled * LANES, from(places, pooled), columns, g, g_row);
                    for (long i = 0; i < columns * s->step(); i++) total += at(g, i) + (s->pool ? at(g, g_row + i) : V{});
                }
                if (db) db[o] += sum(total);
            }
        }
        for (long o = 0, a; o < s->outputs; o += a) {
            a = part(s->outputs - o, MAX_A);
            for (long tap = 0, t; tap < count; tap += t) {
                t = part(count - tap, MAX_T);
                TILE(weights, a, t)(images, taps + tap, x_row, x_block, inner + o * g_plane * LANES, g_plane, g_row, g_block,
                                    rows * s->step(), columns * s->step(), blocks, dw + o * count + tap, count);
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

// The mean and the biased variance of each channel, over all images and pixels. Block by block (Chan et al. 1983).
extern "C" void statistics(const Layer *s, const float *x, float *mean, float *variance) {
    long size = s->rows * s->columns;
    for (long c = 0; c < s->channels; c++) {
        double middle = 0, squares = 0, count = 0;
        for (long b = 0; b < blocks_of(s->images); b++) {
            const float *values = x + (b * s->channels + c) * size * LANES;
            double more = least(LANES, s->images - b * LANES) * size;
            V total = {}, squared = {};
            for (long i = 0; i < size; i++) total += occupied(b, s->images) ? at(values, i) : V{};
            double own = sum(total) / more, apart = own - middle;
            for (long i = 0; i < size; i++) {
                V difference = occupied(b, s->images) ? at(values, i) - all(own) : V{};
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

extern "C" void normalise(const Layer *s, const float *x, const float *scale, const float *shift, float *y, Bytes *places) {
    long rows = s->rows / s->step(), columns = s->columns / s->step();
    for (long c = 0; c < blocks_of(s->images) * s->channels; c++)
        for (long r = 0; r < rows; r++)
            finish(s, x + (c * s->rows + r * s->step()) * s->columns * LANES, s->columns, scale[c % s->channels],
                   shift[c % s->channels], occupied(c / s->channels, s->images), y + (c * rows + r) * columns * LANES,
                   (Bytes *)from(places, (c * rows + r) * columns));
}

// dx = scale · (g − mean(g) − x̂ · mean(g · x̂)), with x̂ = (x − mean) · inverse. With `fixed`, as in evaluation, mean
// and inverse do not depend on x, and dx = scale · g. The last argument g is scratch for one channel of a block.
extern "C" void normalise_backward(const Layer *s, const float *x, const float *mean, const float *inverse,
                                   const float *scale, const float *dy, const Bytes *places, float *dgamma, float *dbeta,
                                   float *dx, float *g) {
    long rows = s->rows / s->step(), columns = s->columns / s->step(), size = s->rows * s->columns;
    double count = double(s->images) * size;
    __builtin_memset(g, 0, size * sizeof(V));
    for (long c = 0; c < s->channels; c++) {
        double gradients = 0, with_x = 0;
        for (int pass = 0; pass < 2; pass++)  // first the sums, then dx
            for (long b = 0; b < blocks_of(s->images); b++) {
                long channel = b * s->channels + c;
                for (long r = 0; r < rows; r++) {
                    long pooled = (channel * rows + r) * columns;
                    spread(s, dy + pooled * LANES, from(places, pooled), columns, g + r * s->step() * s->columns * LANES,
                           s->columns);
                }
                V total = {}, total_x = {};
                V mean_g = all(s->fixed ? 0 : gradients / count), mean_x = all(s->fixed ? 0 : with_x / count);
                for (long i = 0; i < size; i++) {
                    V standard = (at(x, channel * size + i) - all(mean[c])) * all(inverse[c]);
                    if (pass == 0) {
                        total += at(g, i);
                        total_x += at(g, i) * standard;
                    } else {
                        V result = (at(g, i) - mean_g - standard * mean_x) * all(scale[c]);
                        at(dx, channel * size + i) = occupied(b, s->images) ? result : V{};
                    }
                }
                gradients += sum(total);  // nothing in the second pass
                with_x += sum(total_x);
            }
        dgamma[c] = with_x;
        dbeta[c] = gradients;
    }
}

extern "C" void to_blocks(const Layer *s, const float *images, float *x) {
    long size = s->channels * s->rows * s->columns;
    for (long i = 0; i < blocks_of(s->images) * size; i++)
        for (long lane = 0, first = i / size * LANES; lane < LANES; lane++)
            x[i * LANES + lane] = first + lane < s->images ? images[(first + lane) * size + i % size] : 0;
}

extern "C" void from_blocks(const Layer *s, const float *x, float *images) {
    long size = s->channels * s->rows * s->columns;
    for (long image = 0; image < s->images; image++)
        for (long i = 0; i < size; i++) images[image * size + i] = x[(image / LANES * size + i) * LANES + image % LANES];
}

extern "C" long lanes() { return LANES; }
