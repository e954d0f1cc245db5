/* CRC-32C (Castagnoli's polynomial): the processor's own instruction where there is one, else eight tables. */
#ifndef TRINITY_CRC32C_H
#define TRINITY_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define CRC32C_HAS_X86
#include <cpuid.h>
#include <nmmintrin.h>
#endif

/* Goes on from *crc*, 0 at first, as zlib's crc32 does. */
typedef uint32_t (*crc32c_fn)(uint32_t crc, const void *text, size_t length);

static uint32_t crc32c_tables[8][256];

static uint32_t crc32c_portable(uint32_t crc, const void *text, size_t length)
{
    const uint8_t *at = (const uint8_t *)text;
    uint32_t value = ~crc;
    for (; length >= 8; length -= 8, at += 8) {
        value ^= at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        value = crc32c_tables[7][value & 0xFF] ^ crc32c_tables[6][value >> 8 & 0xFF]
              ^ crc32c_tables[5][value >> 16 & 0xFF] ^ crc32c_tables[4][value >> 24]
              ^ crc32c_tables[3][at[4]] ^ crc32c_tables[2][at[5]]
              ^ crc32c_tables[1][at[6]] ^ crc32c_tables[0][at[7]];
    }
    for (; length; length--, at++)
        value = value >> 8 ^ crc32c_tables[0][(value ^ *at) & 0xFF];
    return ~value;
}

#ifdef CRC32C_HAS_X86
__attribute__((target("sse4.2")))
static uint32_t crc32c_x86(uint32_t crc, const void *text, size_t length)
{
    const uint8_t *at = (const uint8_t *)text;
    uint64_t value = (uint32_t)~crc, word;
    for (; length >= 8; length -= 8, at += 8) {
        memcpy(&word, at, 8);
        value = _mm_crc32_u64(value, word);
    }
    for (; length; length--, at++)
        value = _mm_crc32_u8((uint32_t)value, *at);
    return ~(uint32_t)value;
}
#endif

/* Fills the tables, and says what is fastest on this processor. Call it once. */
static crc32c_fn crc32c_choose(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t value = byte;
        for (int bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? 0x82F63B78 : 0);
        crc32c_tables[0][byte] = value;
    }
    for (int byte = 0; byte < 256; byte++)
        for (int table = 1; table < 8; table++) {
            const uint32_t value = crc32c_tables[table - 1][byte];
            crc32c_tables[table][byte] = value >> 8 ^ crc32c_tables[0][value & 0xFF];
        }
#ifdef CRC32C_HAS_X86
    unsigned int a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_2))
        return crc32c_x86;
#endif
    return crc32c_portable;
}

#endif
