/**
 * Rows of 32-bit words in pages, so that a table that grows copies nothing and keeps nobody waiting: a page more, and no
 * object per row. Who uses it knows which rows are in use and what stands in them.
 */

const PAGE_SHIFT = 12;
const PAGE_ROWS = 1 << PAGE_SHIFT;
const ROW_IN_PAGE = PAGE_ROWS - 1;

export class PagedRows {
  private readonly words: number;
  private readonly pages: Int32Array[] = [];

  /** @param words of a row */
  constructor(words: number) {
    this.words = words;
  }

  /** Where the row stands in its page. */
  at(row: number): number {
    return (row & ROW_IN_PAGE) * this.words;
  }

  /** The page of a row that there is room for. */
  page(row: number): Int32Array {
    return this.pages[row >> PAGE_SHIFT]!;
  }

  get(row: number, word: number): number {
    return this.page(row)[this.at(row) + word]!;
  }

  set(row: number, word: number, value: number): void {
    this.page(row)[this.at(row) + word] = value;
  }

  /** Makes room for a row, the first one, or one after a row that there is room for. */
  reserve(row: number): void {
    if (row >> PAGE_SHIFT === this.pages.length) this.pages.push(new Int32Array(PAGE_ROWS * this.words));
  }

  /** Gives the memory of all rows but the first ones back. */
  clear(): void {
    this.pages.length = Math.min(this.pages.length, 1);
  }
}
