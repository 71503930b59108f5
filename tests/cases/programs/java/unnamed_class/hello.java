void main() {
    record Point(int x, int y) {}
    Object shape = new Point(3, 4);
    if (shape instanceof Point(int x, int y)) {
        System.out.println("distance " + Math.hypot(x, y));
    }
}
