// Prints how many GFLOP/s one core does in float32 if it does nothing but multiply-adds. A multiply-add is 2 operations.
#include <algorithm>
#include <chrono>
#include <cstdio>

#if defined(__AVX512F__)
constexpr int BYTES = 64, SUMS = 24;  // of 32 registers
#elif defined(__AVX__)
constexpr int BYTES = 32, SUMS = 12;  // of 16 registers
#else
constexpr int BYTES = 16, SUMS = 24;  // of NEON's 32 registers
#endif

typedef float V __attribute__((vector_size(BYTES)));

// A multiply-add waits for the one before it in the same sum, but not for the other sums.
static V multiply_adds(long times, float a) {
    V factor = a - V{}, sums[SUMS], total = {};
    for (int s = 0; s < SUMS; s++) sums[s] = factor * float(s);  // unequal, or the compiler would compute one sum for all
    for (long i = 0; i < times; i++) {
#pragma GCC unroll 24
        for (int s = 0; s < SUMS; s++) sums[s] = sums[s] * factor + factor;
    }
    for (V sum : sums) total += sum;
    return total;
}

volatile float input = 0.5f;
volatile V output;

int main() {
    constexpr long TIMES = 10'000;
    double best = 1e9;
    for (int round = 0; round < 10'000; round++) {
        auto began = std::chrono::steady_clock::now();
        output = multiply_adds(TIMES, input);
        best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    }
    std::printf("%f\n", 2.0 * SUMS * (BYTES / 4) * TIMES / best / 1e9);
}
