// Winograd's minimal filtering for 3 x 3 convolutions (Lavin and Gray 2015): the maps between pictures and tiles.
// A picture is rows x columns x channels; tiles lie in planes of (tiles x channels), one plane for each place in a tile, so
// that what remains of a convolution is one matrix product a plane.
#include <string.h>

enum { LANES = 8 };
typedef float lanes __attribute__((vector_size(4 * LANES)));

// The maps of one row or column, with strides s and d: names are those of the paper, t for transposed.
static inline void b4(const lanes *x, lanes *y, int s, int d) {
    lanes p = x[4 * s] - 4 * x[2 * s], q = x[3 * s] - 4 * x[s], u = x[4 * s] - x[2 * s], v = 2 * (x[3 * s] - x[s]);
    y[0] = 4 * x[0] - 5 * x[2 * s] + x[4 * s], y[d] = p + q, y[2 * d] = p - q, y[3 * d] = u + v, y[4 * d] = u - v;
    y[5 * d] = 4 * x[s] - 5 * x[3 * s] + x[5 * s];
}
static inline void b4t(const lanes *x, lanes *y, int s, int d) {
    lanes p = x[s] + x[2 * s], m = x[s] - x[2 * s], q = x[3 * s] + x[4 * s], n = x[3 * s] - x[4 * s];
    y[0] = 4 * x[0], y[d] = 4 * x[5 * s] - 4 * m - 2 * n, y[2 * d] = -5 * x[0] - 4 * p - q;
    y[3 * d] = m + 2 * n - 5 * x[5 * s], y[4 * d] = x[0] + p + q, y[5 * d] = x[5 * s];
}
static inline void a4(const lanes *x, lanes *y, int s, int d) {
    lanes p = x[s] + x[2 * s], m = x[s] - x[2 * s], q = x[3 * s] + x[4 * s], n = x[3 * s] - x[4 * s];
    y[0] = x[0] + p + q, y[d] = m + 2 * n, y[2 * d] = p + 4 * q, y[3 * d] = m + 8 * n + x[5 * s];
}
static inline void a4t(const lanes *x, lanes *y, int s, int d) {
    lanes p = x[0] + x[2 * s], m = x[s] + x[3 * s], q = x[0] + 4 * x[2 * s], n = 2 * x[s] + 8 * x[3 * s];
    y[0] = x[0], y[d] = p + m, y[2 * d] = p - m, y[3 * d] = q + n, y[4 * d] = q - n, y[5 * d] = x[3 * s];
}
static inline void b2(const lanes *x, lanes *y, int s, int d) {
    y[0] = x[0] - x[2 * s], y[d] = x[s] + x[2 * s], y[2 * d] = x[2 * s] - x[s], y[3 * d] = x[s] - x[3 * s];
}
static inline void b2t(const lanes *x, lanes *y, int s, int d) {
    y[0] = x[0], y[d] = x[s] - x[2 * s] + x[3 * s], y[2 * d] = x[s] + x[2 * s] - x[0], y[3 * d] = -x[3 * s];
}
static inline void a2(const lanes *x, lanes *y, int s, int d) {
    y[0] = x[0] + x[s] + x[2 * s], y[d] = x[s] - x[2 * s] - x[3 * s];
}
static inline void a2t(const lanes *x, lanes *y, int s, int d) {
    y[0] = x[0], y[d] = x[0] + x[s], y[2 * d] = x[0] - x[s], y[3 * d] = -x[s];
}

#define BOTH(MAP, FROM, TO, in, out)                                       \
    lanes half[TO * FROM];                                                 \
    for (int j = 0; j < FROM; j++) MAP(in + j, half + j, FROM, FROM);      \
    for (int r = 0; r < TO; r++) MAP(half + r * FROM, out + r * TO, 1, 1);

// gather: pictures to planes. A tile of SIDE reads a window of READ that begins PAD before it; planes are PLANES squared.
#define GATHER(NAME, SIDE, READ, PLANES, PAD, MAP)                                                             \
    void NAME##_gather(const float *picture, float *planes, long count, long side, long channels, long step) {            \
        long across = side / SIDE;                                  \
        for (long b = 0; b < count; b++)                                                                       \
            for (long ty = 0; ty < across; ty++)                                                               \
                for (long tx = 0; tx < across; tx++)                                                           \
                    for (long c = 0; c < channels; c += LANES) {                                               \
                        lanes in[READ * READ], out[PLANES * PLANES];                                           \
                        for (int i = 0; i < READ; i++)                                                         \
                            for (int j = 0; j < READ; j++) {                                                   \
                                long y = ty * SIDE - PAD + i, x = tx * SIDE - PAD + j;                         \
                                if (PAD && (y < 0 || x < 0 || y >= side || x >= side)) in[i * READ + j] = (lanes){0}; \
                                else memcpy(in + i * READ + j, picture + ((b * side + y) * side + x) * channels + c, sizeof(lanes)); \
                            }                                                                                  \
                        BOTH(MAP, READ, PLANES, in, out)                                                       \
                        float *to = planes + ((b * across + ty) * across + tx) * channels + c;                 \
                        for (int k = 0; k < PLANES * PLANES; k++) memcpy(to + k * step, out + k, sizeof(lanes)); \
                    }                                                                                          \
    }

// spread: planes to pictures, added to what is there where windows overlap (PAD), else with a bias.
#define SPREAD(NAME, SIDE, WRITE, PLANES, PAD, MAP)                                                            \
    void NAME##_spread(const float *planes, float *picture, const float *bias, long count, long side, long channels, long step) { \
        long across = side / SIDE;                                  \
        for (long b = 0; b < count; b++)                                                                       \
            for (long ty = 0; ty < across; ty++)                                                               \
                for (long tx = 0; tx < across; tx++)                                                           \
                    for (long c = 0; c < channels; c += LANES) {                                               \
                        lanes in[PLANES * PLANES], out[WRITE * WRITE], more = {0};                             \
                        const float *from = planes + ((b * across + ty) * across + tx) * channels + c;         \
                        for (int k = 0; k < PLANES * PLANES; k++) memcpy(in + k, from + k * step, sizeof(lanes)); \
                        BOTH(MAP, PLANES, WRITE, in, out)                                                      \
                        if (bias) memcpy(&more, bias + c, sizeof(lanes));                                      \
                        for (int i = 0; i < WRITE; i++)                                                        \
                            for (int j = 0; j < WRITE; j++) {                                                  \
                                long y = ty * SIDE - PAD + i, x = tx * SIDE - PAD + j;                         \
                                if (PAD && (y < 0 || x < 0 || y >= side || x >= side)) continue;               \
                                float *to = picture + ((b * side + y) * side + x) * channels + c;              \
                                if (PAD) memcpy(&more, to, sizeof(lanes));                                     \
                                lanes sum = out[i * WRITE + j] + more;                                         \
                                memcpy(to, &sum, sizeof(lanes));                                               \
                            }                                                                                  \
                    }                                                                                          \
    }

GATHER(input4, 4, 6, 6, 1, b4) SPREAD(input4, 4, 6, 6, 1, b4t) GATHER(output4, 4, 4, 6, 0, a4t) SPREAD(output4, 4, 4, 6, 0, a4)
GATHER(input2, 2, 4, 4, 1, b2) SPREAD(input2, 2, 4, 4, 1, b2t) GATHER(output2, 2, 2, 4, 0, a2t) SPREAD(output2, 2, 2, 4, 0, a2)
