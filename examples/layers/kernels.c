/* Two layers in float32: RMS norm over the rows of (m, n), and GELU in its tanh form. */
#include <math.h>

static float scale_of(const float *x, int n) {
  double squares = 0;
  for (int j = 0; j < n; j++) squares += (double)x[j] * x[j];
  return (float)(1 / sqrt(squares / n + 1e-6));
}

void rms_norm_forward(const float *x, const float *gamma, int m, int n, float *out) {
  for (int i = 0; i < m; i++) {
    float scale = scale_of(x + i * n, n);
    for (int j = 0; j < n; j++) out[i * n + j] = gamma[j] * x[i * n + j] * scale;
  }
}

void rms_norm_backward(const float *dout, const float *x, const float *gamma, int m, int n,
                       float *dx, float *dgamma) {
  for (int j = 0; j < n; j++) dgamma[j] = 0;
  for (int i = 0; i < m; i++) {
    const float *xi = x + i * n, *di = dout + i * n;
    float scale = scale_of(xi, n);
    double along = 0;
    for (int j = 0; j < n; j++) along += (double)di[j] * gamma[j] * xi[j];
    float mean = (float)(along / n) * scale * scale * scale;
    for (int j = 0; j < n; j++) {
      dx[i * n + j] = scale * di[j] * gamma[j] - xi[j] * mean;
      dgamma[j] += di[j] * xi[j] * scale;
    }
  }
}

static const float C = 0.7978845608f, A = 0.044715f;

void gelu_forward(const float *x, int n, float *out) {
  for (int i = 0; i < n; i++)
    out[i] = 0.5f * x[i] * (1 + tanhf(C * (x[i] + A * x[i] * x[i] * x[i])));
}

void gelu_backward(const float *dout, const float *x, int n, float *dx) {
  for (int i = 0; i < n; i++) {
    float t = tanhf(C * (x[i] + A * x[i] * x[i] * x[i]));
    float inner = C * (1 + 3 * A * x[i] * x[i]);
    dx[i] = dout[i] * (0.5f * (1 + t) + 0.5f * x[i] * (1 - t * t) * inner);
  }
}
