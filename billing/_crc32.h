/* CRC-32 (zlib's), eight bytes a step: the "slicing" tables of Kounavis and Berry. */
#ifndef TRINITY_CRC32_H
#define TRINITY_CRC32_H

#include <stddef.h>
#include <stdint.h>

static uint32_t crc32_tables[8][256];

static void crc32_fill_tables(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t value = byte;
        for (int bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? 0xEDB88320 : 0);
        crc32_tables[0][byte] = value;
    }
    for (int byte = 0; byte < 256; byte++)
        for (int table = 1; table < 8; table++) {
            const uint32_t value = crc32_tables[table - 1][byte];
            crc32_tables[table][byte] = value >> 8 ^ crc32_tables[0][value & 0xFF];
        }
}

static inline uint32_t crc32_of(const void *text, size_t length)
{
    const uint8_t *at = (const uint8_t *)text;
    uint32_t value = 0xFFFFFFFF;
    for (; length >= 8; length -= 8, at += 8) {
        value ^= at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        value = crc32_tables[7][value & 0xFF] ^ crc32_tables[6][value >> 8 & 0xFF]
              ^ crc32_tables[5][value >> 16 & 0xFF] ^ crc32_tables[4][value >> 24]
              ^ crc32_tables[3][at[4]] ^ crc32_tables[2][at[5]] ^ crc32_tables[1][at[6]] ^ crc32_tables[0][at[7]];
    }
    for (; length; length--, at++)
        value = value >> 8 ^ crc32_tables[0][(value ^ *at) & 0xFF];
    return ~value;
}

#endif
