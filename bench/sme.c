// Does an emulator compute SME's outer products of bytes as the architecture defines them?
//
//     ZA[i][j] += sum over k of 4 of N[4 i + k] * M[4 j + k], of the lanes whose predicates are both set
//
// Each is also compared with what qemu computed before its commit d572bcb22201, by its source (do_imopa): two sums at a
// time, those of the even rows only, with ZA[2 r][2 c + h] = row 2 r + h times column 2 c + h.
// bench/sme.py builds and runs it.
#include <stdint.h>
#include <stdio.h>
#include <string.h>

// smstart and smstop clear every vector and predicate register: without saying so, a compiler keeps its own numbers there.
#define CLEARED                                                                                                       \
    "z0", "z1", "z2", "z3", "z4", "z5", "z6", "z7", "z8", "z9", "z10", "z11", "z12", "z13", "z14", "z15", "z16",      \
        "z17", "z18", "z19", "z20", "z21", "z22", "z23", "z24", "z25", "z26", "z27", "z28", "z29", "z30", "z31",      \
        "p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9", "p10", "p11", "p12", "p13", "p14", "p15"

#define RUN(INSTRUCTION)                                                                                              \
    __asm__ volatile(                                                                                                 \
        "smstart\n ptrue p2.b\n"                                                                                      \
        "ld1b {z0.b}, p2/z, [%0]\n ld1b {z1.b}, p2/z, [%1]\n ld1b {z2.b}, p2/z, [%2]\n ld1b {z3.b}, p2/z, [%3]\n"     \
        "cmpne p0.b, p2/z, z2.b, #0\n cmpne p1.b, p2/z, z3.b, #0\n zero {za}\n" INSTRUCTION "\n"                      \
        "mov w12, #0\n mov x9, %4\n"                                                                                  \
        "1: mova z4.s, p2/m, za0h.s[w12, #0]\n st1w {z4.s}, p2, [x9]\n"                                               \
        "add x9, x9, %5\n add w12, w12, #1\n cmp w12, %w6\n b.lt 1b\n smstop\n" ::"r"(n),                             \
        "r"(m), "r"(np), "r"(mp), "r"(za), "r"(bytes), "r"(bytes / 4)                                                 \
        : "memory", "cc", "x9", "x12", CLEARED)

static int8_t n[256], m[256], np[256], mp[256];
static int32_t za[64 * 64], right[64 * 64], pairs[64 * 64];
enum { SMOPA, UMOPA, USMOPA };
static const char *const names[] = {"SMOPA", "UMOPA", "USMOPA"};

__attribute__((noinline)) static void run(int instruction, uint64_t bytes) {
    if (instruction == SMOPA) RUN("smopa za0.s, p0/m, p1/m, z0.b, z1.b");
    if (instruction == UMOPA) RUN("umopa za0.s, p0/m, p1/m, z0.b, z1.b");
    if (instruction == USMOPA) RUN("usmopa za0.s, p0/m, p1/m, z0.b, z1.b");
}

static int32_t sum(int instruction, int row, int column) {
    int32_t total = 0;
    for (int k = 0; k < 4; k++) {
        int i = 4 * row + k, j = 4 * column + k;
        int left = instruction == SMOPA ? n[i] : (uint8_t)n[i];
        if (np[i] && mp[j]) total += left * (instruction == UMOPA ? (uint8_t)m[j] : m[j]);
    }
    return total;
}

__attribute__((noinline)) static int differ(const int32_t *a, const int32_t *b, int count) {
    volatile int found = 0;
    for (int i = 0; i < count; i++)
        if (a[i] != b[i]) found = found + 1;
    return found;
}

int main(void) {
    uint64_t bytes;
    __asm__ volatile("rdsvl %0, #1" : "=r"(bytes));
    int size = (int)bytes / 4;
    uint32_t dice = 1;
    for (int instruction = SMOPA; instruction <= USMOPA; instruction++)
        for (int all = 0; all < 2; all++) {
            for (int i = 0; i < (int)bytes; i++) {
                n[i] = (int8_t)((dice = dice * 1103515245 + 12345) >> 16);
                m[i] = (int8_t)((dice = dice * 1103515245 + 12345) >> 16);
                np[i] = all || dice >> 25 & 1;
                mp[i] = all || dice >> 26 & 1;
            }
            memset(za, 0, sizeof za);
            memset(pairs, 0, sizeof pairs);
            run(instruction, bytes);
            for (int r = 0; r < size; r++)
                for (int c = 0; c < size; c++) right[r * size + c] = sum(instruction, r, c);
            for (int r = 0; r < size; r += 2)
                for (int c = 0; c < size; c++) pairs[r * size + c] = sum(instruction, r + c % 2, c);
            printf("  %-6s %-14s %2d of %d wrong, %2d other than by the source of old qemu\n", names[instruction],
                   all ? "all lanes" : "half the lanes", differ(za, right, size * size), size * size,
                   differ(za, pairs, size * size));
        }
    return 0;
}
