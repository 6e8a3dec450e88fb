/* Write a problem.npz for fastcheck in plain C: a zip file, not compressed, of .npy arrays.
 *
 *     cc -O2 -o write_problem write_problem.c -lm && ./write_problem problem.npz
 *     fastcheck problem.npz
 *
 * The network is 3-4-2 with tanh, squared error and an L2 penalty; its backward pass is below.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a zip file of stored entries ---------------------------------------------------------- */

static FILE *file;
static unsigned char directory[65536]; /* the central directory, written at the end */
static size_t directory_size = 0;
static unsigned entries = 0;

static uint32_t crc32_of(const unsigned char *bytes, size_t count)
{
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
    }
    return ~crc;
}

static unsigned char *put(unsigned char *at, uint32_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        *at++ = (unsigned char)(value >> (8 * i)); /* little endian */
    return at;
}

static void write_bytes(const void *bytes, size_t count)
{
    if (fwrite(bytes, 1, count, file) != count) {
        perror("write_problem");
        exit(1);
    }
}

static void add_entry(const char *name, const unsigned char *bytes, size_t count)
{
    uint32_t start = (uint32_t)ftell(file), size = (uint32_t)count;
    uint32_t crc = crc32_of(bytes, count), length = (uint32_t)strlen(name);
    unsigned char common[26], *at = common; /* what both headers have */
    at = put(at, 20, 2);                    /* version */
    at = put(at, 0, 2);                     /* flags */
    at = put(at, 0, 2);                     /* stored */
    at = put(at, 0, 2);                     /* time */
    at = put(at, 0x21, 2);                  /* date: 1980-01-01 */
    at = put(at, crc, 4);
    at = put(at, size, 4);
    at = put(at, size, 4);
    at = put(at, length, 2);
    put(at, 0, 2); /* no extra field */

    write_bytes("PK\3\4", 4);
    write_bytes(common, sizeof common);
    write_bytes(name, length);
    write_bytes(bytes, count);

    unsigned char *next = directory + directory_size;
    memcpy(next, "PK\1\2", 4);
    next = put(next + 4, 20, 2);
    memcpy(next, common, sizeof common);
    next += sizeof common;
    next = put(next, 0, 2); /* comment */
    next = put(next, 0, 2); /* disk */
    next = put(next, 0, 2); /* internal attributes */
    next = put(next, 0, 4); /* external attributes */
    next = put(next, start, 4);
    memcpy(next, name, length);
    directory_size = (size_t)(next + length - directory);
    entries++;
}

static void close_zip(void)
{
    uint32_t start = (uint32_t)ftell(file);
    unsigned char end[18], *at = end;
    at = put(at, 0, 4);
    at = put(at, entries, 2);
    at = put(at, entries, 2);
    at = put(at, (uint32_t)directory_size, 4);
    at = put(at, start, 4);
    put(at, 0, 2);
    write_bytes(directory, directory_size);
    write_bytes("PK\5\6", 4);
    write_bytes(end, sizeof end);
    fclose(file);
}

/* ---- a .npy array of doubles; columns = 0 for a vector -------------------------------------- */

static void add_array(const char *name, const double *values, int rows, int columns)
{
    unsigned char buffer[8192];
    char header[119], entry[32];
    size_t count = (size_t)rows * (size_t)(columns ? columns : 1);
    int used;
    if (columns)
        used = snprintf(header, sizeof header,
                        "{'descr': '<f8', 'fortran_order': False, 'shape': (%d, %d), }", rows, columns);
    else
        used = snprintf(header, sizeof header,
                        "{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }", rows);
    memset(header + used, ' ', sizeof header - (size_t)used);
    header[117] = '\n'; /* 10 + 118 = 128 bytes before the data */
    memcpy(buffer, "\x93NUMPY\1\0", 8);
    put(buffer + 8, 118, 2);
    memcpy(buffer + 10, header, 118);
    memcpy(buffer + 128, values, count * sizeof(double)); /* on a little-endian machine */
    snprintf(entry, sizeof entry, "%s.npy", name);
    add_entry(entry, buffer, 128 + count * sizeof(double));
}

/* ---- the network and its backward pass ------------------------------------------------------ */

enum { M = 5, N0 = 3, N1 = 4, N2 = 2 };

static double X[M][N0], Y[M][N2], W1[N1][N0], b1[N1], W2[N2][N1], b2[N2];
static double dW1[N1][N0], db1[N1], dW2[N2][N1], db2[N2];
static double J = 0.0;
static const double l2 = 0.25;

static void fill(double *values, size_t count, double phase)
{
    for (size_t i = 0; i < count; i++)
        values[i] = sin(phase + 1.7 * (double)i);
}

static void forward_and_backward(void)
{
    for (int s = 0; s < M; s++) {
        double A1[N1], dZ1, dZ2[N2];
        for (int i = 0; i < N1; i++) {
            double z = b1[i];
            for (int j = 0; j < N0; j++)
                z += W1[i][j] * X[s][j];
            A1[i] = tanh(z);
        }
        for (int k = 0; k < N2; k++) {
            double error = b2[k] - Y[s][k];
            for (int i = 0; i < N1; i++)
                error += W2[k][i] * A1[i];
            J += error * error / 2 / M;
            dZ2[k] = error / M;
            db2[k] += dZ2[k];
            for (int i = 0; i < N1; i++)
                dW2[k][i] += dZ2[k] * A1[i];
        }
        for (int i = 0; i < N1; i++) {
            dZ1 = 0.0;
            for (int k = 0; k < N2; k++)
                dZ1 += dZ2[k] * W2[k][i];
            dZ1 *= 1 - A1[i] * A1[i];
            db1[i] += dZ1;
            for (int j = 0; j < N0; j++)
                dW1[i][j] += dZ1 * X[s][j];
        }
    }
    for (int i = 0; i < N1; i++)
        for (int j = 0; j < N0; j++) {
            J += l2 / (2 * M) * W1[i][j] * W1[i][j];
            dW1[i][j] += l2 / M * W1[i][j];
        }
    for (int k = 0; k < N2; k++)
        for (int i = 0; i < N1; i++) {
            J += l2 / (2 * M) * W2[k][i] * W2[k][i];
            dW2[k][i] += l2 / M * W2[k][i];
        }
}

int main(int argc, char **argv)
{
    static const char spec[] = "{\"activations\": [\"tanh\", \"identity\"], "
                               "\"loss\": \"squared_error\", \"l2\": 0.25, "
                               "\"name\": \"written in C\"}";
    file = fopen(argc > 1 ? argv[1] : "problem.npz", "wb");
    if (!file) {
        perror("write_problem");
        return 1;
    }
    fill(&X[0][0], M * N0, 0.1);
    fill(&Y[0][0], M * N2, 0.2);
    fill(&W1[0][0], N1 * N0, 0.3);
    fill(b1, N1, 0.4);
    fill(&W2[0][0], N2 * N1, 0.5);
    fill(b2, N2, 0.6);
    forward_and_backward();
    add_array("X", &X[0][0], M, N0);
    add_array("Y", &Y[0][0], M, N2);
    add_array("W1", &W1[0][0], N1, N0);
    add_array("b1", b1, N1, 0);
    add_array("W2", &W2[0][0], N2, N1);
    add_array("b2", b2, N2, 0);
    add_array("dW1", &dW1[0][0], N1, N0);
    add_array("db1", db1, N1, 0);
    add_array("dW2", &dW2[0][0], N2, N1);
    add_array("db2", db2, N2, 0);
    add_array("J", &J, 1, 0);
    add_entry("spec.json", (const unsigned char *)spec, strlen(spec)); /* UTF-8 text as it is */
    close_zip();
    return 0;
}
