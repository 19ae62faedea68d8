#include "sample/lines.h"

/* Pairs of (bytes of code, signed lines): a line begins where its bytes end. */
static int64_t find_lnotab(const uint8_t *table, size_t len, int64_t line, int64_t instruction)
{
    int64_t address = 0;
    for (size_t i = 0; i + 1 < len; i += 2) {
        address += table[i];
        if (address > instruction)
            break;
        line += (int8_t)table[i + 1];
    }
    return line;
}

/* Pairs of (bytes of code, signed lines): the line holds for these bytes; -128: there is none. */
static int64_t find_linetable(const uint8_t *table, size_t len, int64_t first, int64_t instruction)
{
    int64_t end = 0, line = first;
    for (size_t i = 0; i + 1 < len; i += 2) {
        int8_t delta = (int8_t)table[i + 1];
        end += table[i];
        if (delta != -128)
            line += delta;
        if (end > instruction)
            return delta == -128 ? first : line;
    }
    return first;
}

/* Six bits a byte, the lowest first; bit 6: another one follows. Five bytes hold 30 bits, and no
 * line number is larger. */
static int64_t read_varint(const uint8_t *table, size_t len, size_t *at)
{
    int64_t value = 0;
    for (unsigned shift = 0; *at < len && shift < 36; shift += 6) {
        uint8_t byte = table[(*at)++];
        value |= (int64_t)(byte & 63) << shift;
        if (!(byte & 64))
            break;
    }
    return value;
}

static int64_t read_signed(const uint8_t *table, size_t len, size_t *at)
{
    int64_t value = read_varint(table, len, at);
    return value & 1 ? -(value >> 1) : value >> 1;
}

/* Entries begin with a byte whose bit 7 is set: kind in bits 3 to 6, code units - 1 in the rest. */
static int64_t find_location(const uint8_t *table, size_t len, int64_t first, int64_t instruction)
{
    int64_t end = 0, line = first;
    for (size_t i = 0; i < len;) {
        unsigned kind = (table[i] >> 3) & 15;
        end += ((table[i] & 7) + 1) * 2;
        i++;
        if (kind == 14 || kind == 13) /* with columns, without */
            line += read_signed(table, len, &i);
        else if (kind >= 10 && kind <= 12)
            line += kind - 10;
        if (end > instruction)
            return kind == 15 ? first : line;
        while (i < len && !(table[i] & 128))
            i++;
    }
    return first;
}

int64_t lines_find(unsigned minor, const uint8_t *table, size_t len, int64_t first_line,
                   int64_t instruction)
{
    int64_t line;
    if (instruction < 0)
        return first_line;
    if (minor >= 11)
        line = find_location(table, len, first_line, instruction);
    else if (minor == 10)
        line = find_linetable(table, len, first_line, instruction);
    else
        line = find_lnotab(table, len, first_line, instruction);
    return line > 0 ? line : first_line;
}
