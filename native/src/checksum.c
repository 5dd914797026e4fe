/* CRC-32; see checksum.h. */

#include "checksum.h"

enum { UNDONE = 65 };

static const uint32_t POLYNOMIAL = 0xEDB88320U; /* bit-reversed: the lowest bit is the highest power */
static uint32_t table[8][256];

void checksum_prepare(void) {
    if (table[0][1]) return;
    for (uint32_t value = 0; value < 256; value++) {
        uint32_t sum = value;
        for (int bit = 0; bit < 8; bit++) sum = sum >> 1 ^ (POLYNOMIAL & (0U - (sum & 1)));
        table[0][value] = sum;
    }
    for (int step = 1; step < 8; step++)
        for (uint32_t value = 0; value < 256; value++) table[step][value] = table[0][table[step - 1][value] & 255] ^ table[step - 1][value] >> 8;
}

uint32_t checksum(uint32_t sum, const uint8_t *text, size_t size) {
    for (; size >= 8; size -= 8, text += 8) {
        uint32_t low, high;
        memcpy(&low, text, 4);
        memcpy(&high, text + 4, 4);
        low ^= sum;
        sum = table[7][low & 255] ^ table[6][low >> 8 & 255] ^ table[5][low >> 16 & 255] ^ table[4][low >> 24] ^ table[3][high & 255] ^
              table[2][high >> 8 & 255] ^ table[1][high >> 16 & 255] ^ table[0][high >> 24];
    }
    for (; size; size--, text++) sum = table[0][(sum ^ *text) & 255] ^ sum >> 8;
    return sum;
}

void checksum_factors(uint64_t *factors, size_t most) {
    uint32_t power = 0x80000000U; /* x to the power of 0 */
    /* A product is divided by x, and a word at the end is divided in 64 further steps: all 65 divisions are undone here. */
    for (int step = 0; step < UNDONE; step++) power = power >> 31 ? (power ^ POLYNOMIAL) << 1 | 1 : power << 1;
    for (size_t distance = 0; distance <= most; distance++) {
        factors[distance] = (uint64_t)power << 32;
        power = table[0][power & 255] ^ power >> 8;
    }
}
