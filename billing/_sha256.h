/* SHA-256 (FIPS 180-4) of short texts: portable, and with the SHA extensions of x86 where the processor has them. */
#ifndef TRINITY_SHA256_H
#define TRINITY_SHA256_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define SHA256_HAS_X86 1
#include <cpuid.h>
#include <immintrin.h>
#endif

typedef void (*sha256_blocks_fn)(uint32_t state[8], const uint8_t *data, size_t blocks);

static const uint32_t sha256_k[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static inline uint32_t sha256_load(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline void sha256_store(uint8_t *at, uint32_t word)
{
    at[0] = (uint8_t)(word >> 24);
    at[1] = (uint8_t)(word >> 16);
    at[2] = (uint8_t)(word >> 8);
    at[3] = (uint8_t)word;
}

#define SHA256_ROTATE(x, n) ((x) >> (n) | (x) << (32 - (n)))

static void sha256_blocks_portable(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    for (; blocks; blocks--, data += 64) {
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7], w[64];
        for (int i = 0; i < 16; i++)
            w[i] = sha256_load(data + 4 * i);
        for (int i = 16; i < 64; i++) {
            uint32_t x = w[i - 15], y = w[i - 2];
            w[i] = w[i - 16] + w[i - 7]
                 + (SHA256_ROTATE(x, 7) ^ SHA256_ROTATE(x, 18) ^ x >> 3)
                 + (SHA256_ROTATE(y, 17) ^ SHA256_ROTATE(y, 19) ^ y >> 10);
        }
        for (int i = 0; i < 64; i++) {
            uint32_t one = h + (SHA256_ROTATE(e, 6) ^ SHA256_ROTATE(e, 11) ^ SHA256_ROTATE(e, 25))
                         + ((e & f) ^ (~e & g)) + sha256_k[i] + w[i];
            uint32_t two = (SHA256_ROTATE(a, 2) ^ SHA256_ROTATE(a, 13) ^ SHA256_ROTATE(a, 22))
                         + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + two;
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d;
        state[4] += e, state[5] += f, state[6] += g, state[7] += h;
    }
}

#ifdef SHA256_HAS_X86
/* The instructions keep the state as (A B E F) and (C D G H), and do two rounds each. */
__attribute__((target("sha,ssse3,sse4.1")))
static void sha256_blocks_x86(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xB1);
    __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1B);
    __m128i abef = _mm_alignr_epi8(low, high, 8), cdgh = _mm_blend_epi16(high, low, 0xF0);
    for (; blocks; blocks--, data += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            __m128i next;
            if (i < 4) {
                next = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)data + i), swap);
            } else {
                const __m128i last = w[(i + 3) & 3];
                next = _mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]);
                next = _mm_add_epi32(next, _mm_alignr_epi8(last, w[(i + 2) & 3], 4));
                next = _mm_sha256msg2_epu32(next, last);
            }
            w[i & 3] = next;
            next = _mm_add_epi32(next, _mm_load_si128((const __m128i *)sha256_k + i));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, next);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(next, 0x0E));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    low = _mm_shuffle_epi32(abef, 0x1B);
    high = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(low, high, 0xF0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(high, low, 8));
}
#endif

/* The fastest that this processor can do. Asks the processor: call it once. */
static sha256_blocks_fn sha256_choose(void)
{
#ifdef SHA256_HAS_X86
    unsigned int a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSSE3) && (c & bit_SSE4_1)
        && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA))
        return sha256_blocks_x86;
#endif
    return sha256_blocks_portable;
}

static inline void sha256(sha256_blocks_fn blocks, const void *text, size_t length, uint8_t digest[32])
{
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    const uint8_t *data = (const uint8_t *)text;
    const size_t rest = length % 64, tail = rest < 56 ? 64 : 128;
    uint8_t last[128];
    blocks(state, data, length / 64);
    memset(last, 0, sizeof(last));
    memcpy(last, data + length - rest, rest);
    last[rest] = 0x80;
    sha256_store(last + tail - 8, (uint32_t)((uint64_t)length >> 29));
    sha256_store(last + tail - 4, (uint32_t)(length << 3));
    blocks(state, last, tail / 64);
    for (int i = 0; i < 8; i++)
        sha256_store(digest + 4 * i, state[i]);
}

#endif
