/* ceiling: the minimum cost of the default pipeline's renditions with libvips, in a plain loop. Each image is decoded once,
 * shrunk by its loader to the largest width, and kept in memory; each smaller width is scaled from the one before. There are
 * no limits, no checks, no placeholder and no protocol.
 *
 * usage: ceiling WIDTH... < commands, widths from large to small
 * Each command is a line with the name of a list of files. The response is a line with the numbers of renditions and of their
 * bytes. It begins with an empty line, after libvips is initialized.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vips/vips.h>

static long renditions, bytes;

static void check(int failed, const char *what, const char *file)
{
	if (failed) {
		fprintf(stderr, "ceiling: %s %s: %s\n", what, file, vips_error_buffer());
		exit(1);
	}
}

/* srgb makes any colour space 8-bit sRGB, by the embedded profile if there is one. It takes the place of its argument. */
static VipsImage *srgb(VipsImage *in, const char *file)
{
	VipsImage *out;
	if (vips_image_get_typeof(in, VIPS_META_ICC_NAME) &&
		!vips_icc_transform(in, &out, "srgb", "embedded", TRUE, NULL)) {
		g_object_unref(in);
		in = out;
	}
	vips_error_clear();
	check(vips_colourspace(in, &out, VIPS_INTERPRETATION_sRGB, NULL), "convert", file);
	g_object_unref(in);
	return out;
}

static VipsImage *in_memory(VipsImage *in, const char *file)
{
	VipsImage *out = vips_image_copy_memory(in);
	check(!out, "decode", file);
	g_object_unref(in);
	return out;
}

/* encode returns the bytes of both files. */
static long encode(VipsImage *m, const char *file)
{
	long sum = 0;
	void *body;
	size_t n;
	VipsImage *flat;
	check(vips_webpsave_buffer(m, &body, &n, "Q", 79, "effort", 4, "strip", TRUE, NULL), "write webp of", file);
	g_free(body);
	sum += n;
	if (vips_image_hasalpha(m)) {
		VipsArrayDouble *white = vips_array_double_newv(3, 255.0, 255.0, 255.0);
		check(vips_flatten(m, &flat, "background", white, NULL), "flatten", file);
		vips_area_unref(VIPS_AREA(white));
	} else {
		flat = g_object_ref(m);
	}
	check(vips_jpegsave_buffer(flat, &body, &n, "Q", 80, "interlace", TRUE, "optimize_coding", TRUE, "subsample_mode",
		VIPS_FOREIGN_SUBSAMPLE_ON, "strip", TRUE, NULL), "write jpeg of", file);
	g_free(body);
	g_object_unref(flat);
	return sum + n;
}

static void render(const char *file, int widths, char **width)
{
	gchar *source;
	gsize length;
	check(!g_file_get_contents(file, &source, &length, NULL), "read", file);
	VipsImage *head = vips_image_new_from_buffer(source, length, "", NULL);
	check(!head, "read header of", file);
	int w = head->Xsize, h = head->Ysize, last = 0;
	long pair = 0;
	if (vips_image_get_orientation(head) >= 5) {
		w = head->Ysize;
		h = head->Xsize;
	}
	g_object_unref(head);
	VipsImage *m = NULL;
	for (int i = 0; i < widths; i++) {
		int to = VIPS_MIN(atoi(width[i]), w);
		int down = VIPS_MAX(1, (int) (h * ((double) to / w) + 0.5));
		renditions += 2;
		if (to == last) { /* the same files again */
			bytes += pair;
			continue;
		}
		last = to;
		VipsImage *next;
		if (m) {
			check(vips_thumbnail_image(m, &next, to, "height", down, "size", VIPS_SIZE_FORCE, NULL), "scale", file);
			g_object_unref(m);
		} else {
			check(vips_thumbnail_buffer(source, length, &next, to, "height", down, "size", VIPS_SIZE_FORCE, NULL), "load", file);
			next = srgb(next, file);
		}
		m = in_memory(next, file);
		bytes += pair = encode(m, file);
	}
	g_object_unref(m);
	g_free(source);
}

int main(int argc, char **argv)
{
	char list[4096], file[4096];
	if (VIPS_INIT(argv[0]))
		vips_error_exit(NULL);
	vips_concurrency_set(1);
	vips_cache_set_max(0);
	puts("");
	fflush(stdout);
	while (fgets(list, sizeof list, stdin)) {
		list[strcspn(list, "\n")] = 0;
		FILE *files = fopen(list, "r");
		check(!files, "open", list);
		renditions = bytes = 0;
		while (fgets(file, sizeof file, files)) {
			file[strcspn(file, "\n")] = 0;
			render(file, argc - 1, argv + 1);
		}
		fclose(files);
		printf("%ld %ld\n", renditions, bytes);
		fflush(stdout);
	}
	vips_shutdown();
	return 0;
}
